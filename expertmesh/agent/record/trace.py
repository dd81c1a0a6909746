"""What is written down of a run? One JSON object a line, at once, with secrets masked.

Each event has `event` (its kind), `at` (Unix time) and its own fields. A `message` in it is one
that the model saw from then on, so that a run can be continued or replayed from its trace.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expertmesh.agent.record.masks import Masks
from expertmesh.agent.record.run_folder import RunFolder, private_file

OUTPUTS = "@outputs/"
"""How the model names the files in a run's `outputs/`."""


class Trace:
    """The trace of a run that is going on."""

    def __init__(self, run: RunFolder, masks: Masks):
        """Raises OSError, also if there is a trace already."""
        self.run = run
        self.masks = masks
        self._outputs: int | None = None
        self._file = os.fdopen(private_file(run.trace), "w", encoding="utf-8")

    def write(self, event: str, **fields: Any) -> None:
        self._file.write(_line(event, self.masks.hide_in(fields)))
        self._file.flush()

    def keep_output(self, text: str) -> str:
        """Keep a tool's full text; returns the name by which the model can read it."""
        if self._outputs is None:  # a run that goes on with another begins with its outputs
            self._outputs = len(os.listdir(self.run.outputs))
        self._outputs += 1
        name = f"{self._outputs}.txt"
        with os.fdopen(private_file(self.run.outputs / name), "wb") as file:
            file.write(self.masks.hide(text).encode("utf-8", "surrogatepass"))
        return OUTPUTS + name

    def close(self) -> None:
        self._file.close()


def append_event(path: Path, event: str, **fields: Any) -> None:
    """To the trace of a run that has ended. Raises OSError."""
    with os.fdopen(private_file(path, os.O_APPEND), "w", encoding="utf-8") as file:
        file.write(_line(event, fields))


def _line(event: str, fields: dict[str, Any]) -> str:
    """Escaped, so that any text that Python can hold can be written."""
    return json.dumps({"event": event, "at": round(time.time(), 3), **fields}) + "\n"


def read_trace(path: Path) -> list[dict[str, Any]]:
    """All events of a trace. Raises ValueError naming the file."""
    try:
        return list(_events(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


def _events(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        lines = file.readlines()
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except ValueError:
            if number == len(lines):
                return  # the run was killed while it wrote
            raise ValueError(f"{path}, line {number}: not JSON") from None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise ValueError(f"{path}, line {number}: not an event of a trace")
        yield event
