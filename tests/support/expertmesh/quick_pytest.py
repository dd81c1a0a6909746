"""A pytest in a project's folder that starts at once: the real one takes most of a second.

It runs the test functions of one file, and ends with the same summary lines and exit codes.
"""

from pathlib import Path

SOURCE = """\
import importlib.util
import sys

file = next(one for one in sys.argv[1:] if one.endswith(".py"))
lines, failed = [], False
try:
    spec = importlib.util.spec_from_file_location("tests_under_test", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
except Exception as error:
    print(f"E   {type(error).__name__}: {error}")
    print(f"ERROR {file} - {type(error).__name__}: {error}")
    sys.exit(2)
for name, function in vars(module).items():
    if name.startswith("test"):
        try:
            function()
            lines.append(f"PASSED {file}::{name}")
        except Exception as error:
            failed = True
            lines.append(f"FAILED {file}::{name} - {type(error).__name__}: {error}")
            if "-x" in sys.argv:
                break
print("\\n".join(lines))
sys.exit(1 if failed else 0 if lines else 5)
"""


def put_into(folder: Path) -> None:
    """So that `python -m pytest` finds it there first."""
    package = folder / "pytest"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SOURCE)
