"""How do a service's flags come from its frozen config dataclass?

`flag(default, help)` declares a field; `parse_config` builds argparse from the
fields. Every `--some-flag` has the environment twin EXPERTMESH_SOME_FLAG; flags
win over the environment, the environment over defaults. Unknown flags, and bad
values anywhere, exit with status 2 and one clear line.
"""

import argparse
import dataclasses
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")


def flag(default: Any, help: str, *, metavar: str | None = None, env: str | None = None) -> Any:
    """A dataclass field that is also a command-line flag."""
    return dataclasses.field(
        default=default, metadata={"help": help, "metavar": metavar, "env": env}
    )


def env_name(field_name: str) -> str:
    """`tls_ca` -> `EXPERTMESH_TLS_CA`."""
    return "EXPERTMESH_" + field_name.upper()


def parse_config(
    config_type: type[Config],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Build a `config_type` from flags, environment and defaults; exits with 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Every flag's environment twin is EXPERTMESH_<FLAG>, for example "
        "EXPERTMESH_LISTEN for --listen (lists: separated by commas).",
    )
    hints = typing.get_type_hints(config_type)
    fields = [field for field in dataclasses.fields(config_type) if "help" in field.metadata]  # type: ignore[arg-type]
    own = config_type.__annotations__
    fields.sort(key=lambda field: field.name not in own)  # --help shows the service's own first
    for field in fields:
        _add_flag(parser, field, hints[field.name])
    namespace = vars(parser.parse_args(argv))
    values = {}
    for field in fields:
        name = field.name
        if namespace[name] is not None:
            values[name] = namespace[name]
        elif env_name(name) in environ:
            try:
                values[name] = _from_env(environ[env_name(name)], hints[name])
            except ValueError as error:
                parser.error(f"{env_name(name)}: {error}")
    try:
        return config_type(**values)
    except (ValueError, TypeError) as error:
        parser.error(str(error))


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    option = "--" + field.name.replace("_", "-")
    default = field.default
    shown = "" if default in (None, (), "", False) else f" (default: {default})"
    text = (field.metadata["help"] + shown).replace("%", "%%")
    metavar = field.metadata.get("metavar")
    if hint is bool:
        says_no = field.name.startswith("no_")  # and needs no --no-no-...
        action: Any = "store_true" if says_no else argparse.BooleanOptionalAction
        parser.add_argument(option, help=text, action=action, default=None)
        return
    scalar = _scalar_type(hint)
    if typing.get_origin(hint) is tuple:
        parser.add_argument(
            option, help=text + " (repeatable)", metavar=metavar, type=scalar, action="append"
        )
        return
    parser.add_argument(option, help=text, metavar=metavar, type=scalar, default=None)


def _scalar_type(hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return {int: int, float: float, str: str, Path: Path}[hint]


def _from_env(text: str, hint: Any) -> Any:
    if hint is bool:
        lowered = text.strip().lower()
        if lowered in ("1", "true", "yes", "on"):
            return True
        if lowered in ("0", "false", "no", "off", ""):
            return False
        raise ValueError(f"expected true or false, got {text!r}")
    scalar = _scalar_type(hint)
    if typing.get_origin(hint) is tuple:
        return tuple(scalar(part.strip()) for part in text.split(",") if part.strip())
    return scalar(text)
