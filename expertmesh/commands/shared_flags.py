"""How do several commands get the same flags, and one object of their values?"""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any


def with_flags(
    command: Callable[..., None],
    flags: Mapping[str, tuple[Any, Any]],
    make: Callable[..., Any],
) -> Callable[..., None]:
    """The command with these flags, name -> (type, option), in the place of its first parameter,
    which `make` makes of their values."""
    own = list(inspect.signature(command).parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=option)
        for name, (kind, option) in flags.items()
    ]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + added

    @wraps(command)
    def run(*made: Any, **given: Any) -> None:
        values = {name: given.pop(name) for name in flags}
        command(make(**values), *made, **given)

    # Typer reads flags from the signature and their types from the annotations.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
