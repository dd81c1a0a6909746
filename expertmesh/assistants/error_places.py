"""Which lines of code does the output of a failed command speak of? Shown with their numbers."""

import re
from pathlib import Path

from expertmesh.agent.contained import Folder, OutsideError
from expertmesh.assistants.reviewing.passages import Passage, of_text

_PLACES = (
    re.compile(r'File "([^"\n]{1,300})", line (\d{1,7})'),
    re.compile(r"(?m)^\s*([\w./-]{1,300}\.\w{1,5}):(\d{1,7})(?::\d+)?:"),
)
MOST_PLACES = 3
_AROUND = 15
_MAX_BYTES = 1 << 20


def places_in(output: str) -> list[tuple[str, int]]:
    """(file, line) of each, in the order of the output; of a traceback the last is the nearest."""
    found = [
        (one.start(), one[1], int(one[2])) for each in _PLACES for one in each.finditer(output)
    ]
    return list(dict.fromkeys((file, line) for _, file, line in sorted(found)))


def code_around(output: str, work_dir: Path) -> list[Passage]:
    """Lines around the last places that are in the folder; the folder is never left."""
    folder = Folder(work_dir)
    passages: list[Passage] = []
    for file, line in reversed(places_in(output)):
        if len(passages) == MOST_PLACES:
            break
        text = _read(folder, file)
        if text is None or any(one.file == file and line in one.reportable for one in passages):
            continue
        rows = of_text(text, file).rows[max(0, line - 1 - _AROUND) : line + _AROUND]
        if rows:
            passages.append(Passage(file, rows))
    return passages[::-1]


def _read(folder: Folder, file: str) -> str | None:
    """None for what is not there, not in the folder, or no text."""
    try:
        parts = folder.parts(file)
        return folder.read(parts, _MAX_BYTES).decode("utf-8") if parts else None
    except (OSError, OutsideError, ValueError):
        return None
