"""`expertmesh data`: a data assistant whose scripts ran, and whose numbers were printed by them."""

import typer

from expertmesh.commands.data import analyse, words
from expertmesh.console import help_text
from expertmesh.help_pages import CommandGroup

_HELP = """Analyse files of data with the model: CSV, JSON lines, JSON, Parquet, Excel.

The model sees a profile of the file (columns, kinds, ranges, a few cells), not the file. Scripts
that it writes run in the sandbox of `expertmesh agent`, beside a copy of the data. Numbers that it
says and that stand nowhere are marked.
"""


def register(app: typer.Typer) -> None:
    group = CommandGroup(help=help_text(_HELP), no_args_is_help=True)
    analyse.register(group)
    words.register(group)
    app.add_typer(group, name="data")
