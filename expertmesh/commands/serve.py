"""`expertmesh serve SERVICE`: run one service in this process, for several machines."""

import importlib

import typer

from expertmesh.console import EXIT_CODES_HELP, help_text
from expertmesh.help_pages import CommandGroup

MODULES = {
    "gateway": ("gateway", "the HTTP edge: OpenAI-style API, chat template, tokenizer"),
    "router": ("router_svc", "the router: members, placement of experts, topology"),
    "attention": ("attention_svc", "an attention service: KV cache, layer loop, sampling"),
    "expert": ("expert_svc", "an expert pool: expert weights and the grouped FFN"),
}

_HELP = f"""Run one service in this process; all further flags are the service's own.

Use it to run the system on several machines: docs/several-machines.md has the exact commands.
`expertmesh serve SERVICE --help` lists a service's flags.

Examples:

  expertmesh serve router --listen 127.0.0.1:50050

  expertmesh serve expert --help

{EXIT_CODES_HELP}
"""


def register(app: typer.Typer) -> None:
    group = CommandGroup(help=help_text(_HELP), no_args_is_help=True)
    for name, (module, what) in MODULES.items():
        group.command(
            name,
            help=f"Run {what}.",
            context_settings={
                "ignore_unknown_options": True,
                "allow_extra_args": True,
                "help_option_names": [],  # --help is the service's
            },
        )(_runner(module))
    app.add_typer(group, name="serve")


def _runner(module: str):  # type: ignore[no-untyped-def]
    def run(context: typer.Context) -> None:
        service = importlib.import_module(f"{module}.__main__")
        raise typer.Exit(service.main(context.args))

    return run
