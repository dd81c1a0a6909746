"""What does a toy program return or raise? It is run, in this process, up to a number of steps.

Only for programs that this folder's own templates make; what a model wrote runs in a process of
its own (judging/).
"""

import sys
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

MAX_STEPS = 3_000
"""Lines after which a call counts as endless."""


class EndlessError(Exception):
    """The program ran for too many steps."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A frame that an exception passed."""

    file: str
    function: str
    line: int
    columns: tuple[int, int] | None
    arguments: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Raised:
    """An exception, from the outermost frame inwards."""

    error: Exception
    places: tuple[Place, ...]


def define(source: str, file: str) -> dict[str, Any]:
    """The names that a module's source defines. Raises what the source raises."""
    names: dict[str, Any] = {"__name__": file.removesuffix(".py")}
    exec(compile(source, file, "exec"), names)
    if "while " in source:
        for value in names.values():
            if hasattr(value, "__code__"):
                value.may_be_endless = True
    return names


def call(function: Any, arguments: tuple[Any, ...]) -> tuple[Any, Raised | None]:
    """(value, None) or (None, what was raised). Arguments are copied: programs may change them."""
    try:
        run = limited if hasattr(function, "may_be_endless") else _unlimited
        return run(function, *_copied(arguments)), None
    except Exception as error:
        return None, Raised(error=error, places=places(error.__traceback__))


def _unlimited(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


def limited(function: Any, *arguments: Any) -> Any:
    """The function's value. Raises EndlessError after MAX_STEPS lines."""
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > MAX_STEPS:
            raise EndlessError
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        return function(*arguments)
    finally:
        sys.settrace(before)


def places(traceback: TracebackType | None) -> tuple[Place, ...]:
    """The frames of programs that an exception passed, outermost first."""
    found = []
    while traceback:
        frame = traceback.tb_frame
        file = frame.f_code.co_filename
        if "demo_model" not in file:
            count = frame.f_code.co_argcount
            found.append(
                Place(
                    file=file,
                    function=frame.f_code.co_name,
                    line=traceback.tb_lineno,
                    columns=_columns(traceback),
                    arguments=tuple(
                        (name, repr(frame.f_locals.get(name)))
                        for name in frame.f_code.co_varnames[:count]
                    ),
                )
            )
        traceback = traceback.tb_next
    return tuple(found)


def _columns(traceback: TracebackType) -> tuple[int, int] | None:
    """Columns of the expression that raised, where the interpreter knows and it is on one line."""
    positions = list(traceback.tb_frame.f_code.co_positions())
    line, end_line, start, end = positions[traceback.tb_lasti // 2]
    if line is None or line != end_line or start is None or end is None:
        return None
    return start, end


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(each) for each in value]
    if isinstance(value, tuple):
        return tuple(_copied(each) for each in value)
    return dict(value) if isinstance(value, dict) else value
