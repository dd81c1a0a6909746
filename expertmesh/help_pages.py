"""How does `--help` look? Names are never cut or broken, however narrow the terminal.

Plain text of two columns, as argparse writes it for the services. The width is click's: that of the
terminal, but at most 80.
"""

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from rpc.process.help_lines import page, wrapped

_LONGEST_BESIDE_ITS_TEXT = 26


class _Page:
    """What a command and a group have in common. `formatter` collects the page."""

    def format_help_text(self: Any, ctx: Any, formatter: Any) -> None:
        """The text of the command; examples, which are indented, stay as they are."""
        lines = page(self.help or "", formatter.width - 2)
        formatter.write("\n" + "".join(f"  {line}".rstrip() + "\n" for line in lines))

    def format_options(self: Any, ctx: Any, formatter: Any) -> None:
        """Arguments and options, below the headings of their panels."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for one in self.get_params(ctx):
            record = one.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if one.param_type_name == "argument" else "Options"
                title = getattr(one, "rich_help_panel", None) or usual
                panels.setdefault(title, []).append(record)
        for title, rows in panels.items():
            _write_table(formatter, title, rows)


class _Command(_Page, TyperCommand):
    pass


class Group(_Page, TyperGroup):
    """A command with commands below it."""

    def format_options(self: Any, ctx: Any, formatter: Any) -> None:
        """And the commands, each with its first paragraph."""
        super().format_options(ctx, formatter)
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        shown = [(name, one.help or "") for name, one in commands if not one.hidden]
        _write_table(
            formatter, "Commands", [(name, text.partition("\n\n")[0]) for name, text in shown]
        )


class CommandGroup(typer.Typer):
    """A typer app whose commands have such pages."""

    def __init__(self, kind: type[Group] = Group, **settings: Any):
        super().__init__(cls=kind, rich_markup_mode=None, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Any:
        return super().command(name, cls=_Command, **settings)


def _write_table(formatter: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Names to the left; a text begins beside its name, or below one that is too long."""
    beside = min(_LONGEST_BESIDE_ITS_TEXT, max(len(name) for name, _ in rows))
    column = 2 + beside + 2
    formatter.write(f"\n{title}:\n")
    for name, text in rows:
        lines = wrapped(text, formatter.width - column)
        first = f"  {name}".ljust(column)
        if len(name) <= beside and lines:
            first += lines.pop(0)
        for line in (first, *(" " * column + one for one in lines)):
            formatter.write(line.rstrip() + "\n")
