"""How do a service's flags come from its frozen config dataclass?

`flag(default, help)` declares a field; `parse_config` builds argparse from the
fields. Every `--some-flag` can also be set as EXPERTMESH_SOME_FLAG; flags
win over the environment, the environment over defaults. Unknown flags, and bad
values anywhere, exit with status 2 and one clear line.

`expertmesh up` lists the flags (`flags_of`), writes command lines with them (`Flag.arguments`)
and checks values before it starts a process (`check_config`).
"""

import argparse
import dataclasses
import os
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from rpc.process.help_lines import WholeWords

Config = TypeVar("Config")


def flag(default: Any, help: str, *, metavar: str | None = None, secret: bool = False) -> Any:
    """A dataclass field that is also a command-line flag; a secret is kept out of command lines."""
    return dataclasses.field(
        default=default, metadata={"help": help, "metavar": metavar, "secret": secret}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag of a config."""

    name: str  # the field's: `tls_ca` for --tls-ca
    kind: type  # bool, int, float, str or Path
    is_list: bool
    default: Any
    help: str
    metavar: str | None
    is_secret: bool

    @property
    def option(self) -> str:
        return option_name(self.name)

    @property
    def is_negative(self) -> bool:
        """Whether it is a --no-... already: it gets no --no-no-..."""
        return self.name.startswith("no_")

    def arguments(self, value: Any) -> list[str]:
        """The words of a command line that set this value."""
        if self.kind is bool:
            if value:
                return [self.option]
            return [] if self.is_negative else ["--no-" + self.option.removeprefix("--")]
        return [f"{self.option}={one}" for one in (value if self.is_list else [value])]


def flags_of(config_type: type) -> list[Flag]:
    """All flags in the order of --help, the service's own first."""
    hints = typing.get_type_hints(config_type)
    fields = [field for field in dataclasses.fields(config_type) if "help" in field.metadata]
    fields.sort(key=lambda field: field.name not in config_type.__annotations__)
    return [
        Flag(
            name=field.name,
            kind=_scalar_type(hints[field.name]),
            is_list=typing.get_origin(hints[field.name]) is tuple,
            default=field.default,
            help=field.metadata["help"],
            metavar=field.metadata["metavar"],
            is_secret=field.metadata["secret"],
        )
        for field in fields
    ]


def option_name(field_name: str) -> str:
    """`tls_ca` -> `--tls-ca`."""
    return "--" + field_name.replace("_", "-")


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
        usage="%(prog)s [OPTIONS]",
        description=description,
        formatter_class=WholeWords,
        allow_abbrev=False,
        epilog="Every flag can also be set in the environment, as EXPERTMESH_<FLAG>: "
        "EXPERTMESH_LISTEN for --listen (lists: separated by commas).",
    )
    for one in flags_of(config_type):
        if one.is_secret and shows(one.option, argv):
            sys.stderr.write(f"{prog}: {shown_warning(one.option)}\n")
    return _read(parser, config_type, argv, environ)


def shows(option: str, argv: Sequence[str]) -> bool:
    """Whether a command line gives this option a value."""
    return any(word == option or word.startswith(option + "=") for word in argv)


def shown_warning(option: str) -> str:
    """The warning about a secret given on the command line."""
    variable = env_name(option.removeprefix("--").replace("-", "_"))
    return (
        f"warning: every user of this machine can read {option} in the list of processes;"
        f" use {option}-file or {variable} instead"
    )


def check_config(
    config_type: type[Config], argv: Sequence[str], environ: Mapping[str, str]
) -> Config:
    """The config that the service would get from these. Raises ValueError naming the flag."""
    return _read(_Raising(allow_abbrev=False, add_help=False), config_type, argv, environ)


class _Raising(argparse.ArgumentParser):
    """A parser that raises: argparse's own `error` ends the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _read(
    parser: argparse.ArgumentParser,
    config_type: type[Config],
    argv: Sequence[str],
    environ: Mapping[str, str],
) -> Config:
    flags = flags_of(config_type)
    for one in flags:
        _add_flag(parser, one)
    given = vars(parser.parse_args(argv))
    values = {name: value for name, value in given.items() if value is not None}
    for one in flags:
        variable = env_name(one.name)
        if one.name not in values and variable in environ:
            try:
                values[one.name] = _from_env(environ[variable], one)
            except ValueError as error:
                parser.error(f"{variable}: {error}")
    try:
        return config_type(**values)
    except (ValueError, TypeError) as error:
        parser.error(str(error))


def _add_flag(parser: argparse.ArgumentParser, one: Flag) -> None:
    shown = "" if one.default in (None, (), "", False) else f" (default: {one.default})"
    repeatable = " (repeatable)" if one.is_list else ""
    text = (one.help + shown + repeatable).replace("%", "%%")
    if one.kind is bool:
        action: Any = "store_true" if one.is_negative else argparse.BooleanOptionalAction
        parser.add_argument(one.option, help=text, action=action, default=None)
    else:
        action = "append" if one.is_list else "store"
        parser.add_argument(
            one.option, help=text, metavar=one.metavar, type=one.kind, action=action
        )


def _scalar_type(hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return {bool: bool, int: int, float: float, str: str, Path: Path}[hint]


def _from_env(text: str, one: Flag) -> Any:
    if one.kind is bool:
        lowered = text.strip().lower()
        if lowered in ("1", "true", "yes", "on"):
            return True
        if lowered in ("0", "false", "no", "off", ""):
            return False
        raise ValueError(f"expected true or false, got {text!r}")
    if one.is_list:
        return tuple(one.kind(part.strip()) for part in text.split(",") if part.strip())
    return one.kind(text)
