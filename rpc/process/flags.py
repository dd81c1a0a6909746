"""How do a service's flags come from its frozen config dataclass?

`flag(default, help)` declares a field; `parse_config` builds argparse from the
fields. Every `--some-flag` has the environment twin EXPERTMESH_SOME_FLAG; flags
win over the environment, the environment over defaults. Unknown flags, and bad
values anywhere, exit with status 2 and one clear line.

Others can learn the flags (`flags_of`), write them (`arguments`), and try them without a
process (`check_config`).
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

Config = TypeVar("Config")


def flag(default: Any, help: str, *, metavar: str | None = None, secret: bool = False) -> Any:
    """A dataclass field that is also a command-line flag; a secret is kept out of command lines."""
    return dataclasses.field(
        default=default, metadata={"help": help, "metavar": metavar, "secret": secret}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag of a config, for who passes it on."""

    name: str
    """The field's name, `tls_ca` for --tls-ca."""
    kind: type
    """bool, int, float, str or Path."""
    is_list: bool
    default: Any
    help: str
    is_secret: bool

    @property
    def option(self) -> str:
        return option_name(self.name)

    def arguments(self, value: Any) -> list[str]:
        """The command line that says this; of a list, each item."""
        if self.kind is bool:
            if value:
                return [self.option]
            return [] if _says_no(self.name) else ["--no-" + self.option.removeprefix("--")]
        return [f"{self.option}={one}" for one in (value if self.is_list else [value])]


def flags_of(config_type: type) -> list[Flag]:
    """All flags in the order of --help, the service's own first."""
    return [
        Flag(
            name=field.name,
            kind=bool if hint is bool else _scalar_type(hint),
            is_list=typing.get_origin(hint) is tuple,
            default=field.default,
            help=field.metadata["help"],
            is_secret=field.metadata["secret"],
        )
        for field, hint in _fields(config_type)
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
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Every flag's environment twin is EXPERTMESH_<FLAG>, for example "
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
    """Of an option with a secret that stands on a command line."""
    twin = env_name(option.removeprefix("--").replace("-", "_"))
    return (
        f"warning: every user of this machine can read {option} in the list of processes;"
        f" {option}-file or {twin} keeps it out of there"
    )


def check_config(
    config_type: type[Config], argv: Sequence[str], environ: Mapping[str, str]
) -> Config:
    """What the service would make of these. Raises ValueError naming the flag."""
    return _read(_Raising(allow_abbrev=False, add_help=False), config_type, argv, environ)


class _Raising(argparse.ArgumentParser):
    """argparse's own way to report a mistake ends the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _read(
    parser: argparse.ArgumentParser,
    config_type: type[Config],
    argv: Sequence[str],
    environ: Mapping[str, str],
) -> Config:
    fields = _fields(config_type)
    for field, hint in fields:
        _add_flag(parser, field, hint)
    namespace = vars(parser.parse_args(argv))
    values = {}
    for field, hint in fields:
        name = field.name
        if namespace[name] is not None:
            values[name] = namespace[name]
        elif env_name(name) in environ:
            try:
                values[name] = _from_env(environ[env_name(name)], hint)
            except ValueError as error:
                parser.error(f"{env_name(name)}: {error}")
    try:
        return config_type(**values)
    except (ValueError, TypeError) as error:
        parser.error(str(error))


def _fields(config_type: type) -> list[tuple[dataclasses.Field, Any]]:
    """(field, its type), the service's own before the shared ones."""
    hints = typing.get_type_hints(config_type)
    fields = [field for field in dataclasses.fields(config_type) if "help" in field.metadata]
    fields.sort(key=lambda field: field.name not in config_type.__annotations__)
    return [(field, hints[field.name]) for field in fields]


def _says_no(field_name: str) -> bool:
    return field_name.startswith("no_")  # and needs no --no-no-...


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    option = option_name(field.name)
    default = field.default
    shown = "" if default in (None, (), "", False) else f" (default: {default})"
    text = (field.metadata["help"] + shown).replace("%", "%%")
    metavar = field.metadata.get("metavar")
    if hint is bool:
        says_no = _says_no(field.name)
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
