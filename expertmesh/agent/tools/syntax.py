"""Does a file still parse after it was changed?"""

import ast
import json
import tomllib
import warnings


def syntax_error(path: str, data: bytes) -> str | None:
    """What is wrong with a file of Python, JSON or TOML, with the line; None if nothing is."""
    kind = path.lower().rpartition(".")[2]
    try:
        text = data.decode("utf-8-sig")
        if kind in ("py", "pyi"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about escapes in strings: not errors
                ast.parse(data)
        elif kind == "json":
            json.loads(text)
        elif kind == "toml":
            tomllib.loads(text)
    except SyntaxError as error:
        near = f": {error.text.strip()[:80]}" if error.text else ""
        return f"line {error.lineno}: {error.msg}{near}"
    except RecursionError:
        return "it is nested too deeply"
    except (ValueError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None
