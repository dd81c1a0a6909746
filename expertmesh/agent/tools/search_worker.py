"""The search of search_files.py: a program for the sandbox, of the standard library alone.

Argument: JSON with pattern, files, folder, regex, ignore_case. Exits with 3 for a bad expression.
"""

import fnmatch
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

MAX_MATCHES = 100
MAX_FILES = 300
MAX_FILE_BYTES = 2 << 20
MAX_LINE_CHARS = 240
EXIT_BAD_PATTERN = 3
SKIPPED = {
    *(".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache"),
}


def files(wanted: str) -> Iterator[str]:
    """Names below the current folder, sorted, links left out."""
    for place, folders, names in os.walk("."):
        folders[:] = sorted(one for one in folders if one not in SKIPPED)
        for name in sorted(names):
            path = os.path.join(place, name)[2:]
            fits = fnmatch.fnmatch(path, wanted) or fnmatch.fnmatch(name, wanted)
            if fits and not os.path.islink(path) and os.path.isfile(path):
                yield path


def matches(path: str, pattern: "re.Pattern[str]") -> Iterator[tuple[int, str]]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return  # not readable for us: nothing to find
    if b"\0" in data or len(data) > MAX_FILE_BYTES:
        return
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        if pattern.search(line):
            yield number, line.rstrip("\r")[:MAX_LINE_CHARS]


def main(arguments: dict[str, Any]) -> int:
    prefix = os.path.normpath(arguments.get("folder") or ".")
    prefix = "" if prefix == "." else prefix + "/"
    found, wanted = [], files(arguments.get("files") or "*")
    text = arguments.get("pattern") or ""
    limit, what = (MAX_MATCHES, "matches") if text else (MAX_FILES, "files")
    try:
        flags = re.IGNORECASE if arguments.get("ignore_case") else 0
        pattern = re.compile(text if arguments.get("regex") else re.escape(text), flags)
    except re.error as error:
        sys.stderr.write(f"pattern: not a regular expression: {error}\n")
        return EXIT_BAD_PATTERN
    for path in wanted:
        lines = matches(path, pattern) if text else [(0, "")]
        found += [f"{prefix}{path}:{n}: {line}" if n else prefix + path for n, line in lines]
        if len(found) > limit:
            found[limit:] = [f"[more than {limit} {what}: search for less]"]
            break
    sys.stdout.write("\n".join(found or [f"no {what}"]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
