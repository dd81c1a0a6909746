"""`expertmesh dev`: a development assistant that checks what the model says by running it."""

import typer

from expertmesh.commands.dev import debug, refactor, review, tests
from expertmesh.console import help_text
from expertmesh.help_pages import CommandGroup

_HELP = """Review code, write tests, find faults, refactor, with the model.

What the model says is checked before you see it: findings name lines that exist, tests were run
and notice mistakes, repairs and refactorings pass your command. Code of the model runs in the
sandbox of `expertmesh agent`.
"""


def register(app: typer.Typer) -> None:
    group = CommandGroup(help=help_text(_HELP), no_args_is_help=True)
    review.register(group)
    tests.register(group)
    debug.register(group)
    refactor.register(group)
    app.add_typer(group, name="dev")
