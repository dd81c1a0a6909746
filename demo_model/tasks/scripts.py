"""What does a script print or raise when it is run? With the traceback that Python prints."""

import linecache
import traceback
from dataclasses import dataclass
from typing import Any

from demo_model.programs import running


@dataclass(frozen=True, kw_only=True)
class Run:
    """The end of one run."""

    output: str
    error: Exception | None
    exit_code: int
    endless: bool = False


def run(source: str, path: str) -> Run:
    """Of a toy script; what it prints before it fails is not kept."""
    printed: list[str] = []

    def show(*values: Any) -> None:
        printed.append(" ".join(map(str, values)))

    try:
        names: dict[str, Any] = {"__name__": "__main__", "print": show}
        running.limited(exec, compile(source, path, "exec"), names)
    except running.EndlessError as error:
        return Run(output="", error=error, exit_code=124, endless=True)
    except Exception as error:
        return Run(output=told(error, source, path), error=error, exit_code=1)
    return Run(output="".join(f"{line}\n" for line in printed), error=None, exit_code=0)


def told(error: Exception, source: str, path: str) -> str:
    """What Python writes about the error, our own frames left out."""
    linecache.cache[path] = (len(source), None, source.splitlines(True), path)
    try:
        shown = traceback.TracebackException.from_exception(error)
        kept = [frame for frame in shown.stack if frame.filename == path]
        shown.stack = traceback.StackSummary.from_list(kept)
        return "".join(shown.format())
    finally:
        linecache.cache.pop(path, None)
