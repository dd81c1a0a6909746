"""`expertmesh bench`: how fast is a server, the engine alone, or the pools alone?"""

import typer

from expertmesh.commands.bench import offline, replay, serve
from expertmesh.console import help_text
from expertmesh.help_pages import CommandGroup


def register(app: typer.Typer) -> None:
    group = CommandGroup(
        help="Measure a server, the engine alone, or the pools alone.", no_args_is_help=True
    )
    group.command("serve", help=help_text(serve.HELP))(serve.serve)
    group.command("offline", help=help_text(offline.HELP))(offline.offline)
    group.command("replay", help=replay.HELP)(replay.replay)
    app.add_typer(group, name="bench")
