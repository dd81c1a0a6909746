"""`expertmesh connect`: configure coding agents and other clients for this mesh."""

import os
import sys
from pathlib import Path

import typer

from expertmesh.clients.asked_server import API_KEY, BASE_URL, MODEL_NAME
from expertmesh.clients.chat import client_key
from expertmesh.clients.router import API_KEY_FILE, RUN_DIR
from expertmesh.cluster.state import DEFAULT_URL, running_url
from expertmesh.connect.ask import Served, ask
from expertmesh.connect.client import Client, Places, Setup
from expertmesh.connect.known import CLIENTS
from expertmesh.connect.mesh import MOST_OUTPUT, Key, Mesh
from expertmesh.connect.record import Record
from expertmesh.connect.show import (
    changes_json,
    list_json,
    list_lines,
    removed_text,
    setup_json,
    setup_text,
    written_text,
)
from expertmesh.connect.write import CannotMergeError, carry_out, plan, plan_removal
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_FAILED,
    EXIT_USAGE,
    JSON,
    CommandError,
    command_errors,
    help_text,
    print_json,
)
from expertmesh.state_root import state_root

_HELP = f"""Configure a client for this mesh: print what has to be in its files, or write it.

The server is asked for its model and context, and whether it wants a key. Without --write nothing
is changed: the files are printed, with where they belong and how the client is started. --write
merges them into what is there, shows the difference, and keeps copies; a second time it changes
nothing. --remove takes out what was written, and leaves what you have changed since.

Keys are not written: the files name the environment variable that holds yours, or the command that
starts the client passes it on. Without a name, the clients are listed.

Examples:

  expertmesh connect

  expertmesh connect claude-code

  expertmesh connect codex --write

  expertmesh connect opencode --write --dir .

  expertmesh connect pi --offline --model-name MiniMax-M2 --context 196608 \\
    --base-url http://10.0.0.5:8000

  expertmesh connect codex --remove

{EXIT_CODES_HELP}
"""


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_HELP))(connect)


def connect(
    client: str | None = typer.Argument(None, help=f"One of {', '.join(CLIENTS)}."),
    base_url: str | None = BASE_URL,
    run_dir: Path | None = RUN_DIR,
    api_key: str | None = API_KEY,
    api_key_file: Path | None = API_KEY_FILE,
    model: str | None = MODEL_NAME,
    context: int | None = typer.Option(
        None,
        envvar="EXPERTMESH_CONTEXT",
        help="Tokens of prompt and answer together. Default: what the server says.",
    ),
    max_tokens: int | None = typer.Option(
        None,
        envvar="EXPERTMESH_MAX_TOKENS",
        help="Tokens of an answer, thinking included, for which clients keep room. Default: a "
        f"quarter of the context, at most {MOST_OUTPUT}.",
    ),
    timeout: int = typer.Option(
        Mesh.timeout_s,
        envvar="EXPERTMESH_CONNECT_TIMEOUT",
        help="Seconds for which clients wait for more of an answer.",
    ),
    offline: bool = typer.Option(
        False,
        envvar="EXPERTMESH_OFFLINE",
        help="Ask no server; needs --model-name and --context. A key is wanted if one is given.",
    ),
    key_env: str = typer.Option(
        Key.variable,
        envvar="EXPERTMESH_KEY_ENV",
        help="Environment variable in which clients find the key.",
    ),
    write_key: bool = typer.Option(
        False,
        envvar="EXPERTMESH_WRITE_KEY",
        help="With --write: put the key itself into the client's files, for your eyes only (mode "
        "0600).",
    ),
    write: bool = typer.Option(
        False, envvar="EXPERTMESH_WRITE", help="Write it into the client's files."
    ),
    remove: bool = typer.Option(
        False, envvar="EXPERTMESH_REMOVE", help="Take out of the files what was written."
    ),
    project: Path | None = typer.Option(
        None,
        "--dir",
        envvar="EXPERTMESH_CONNECT_DIR",
        help="Folder of a project, for which alone it shall be. Default: for all you do.",
    ),
    home: Path | None = typer.Option(
        None, envvar="EXPERTMESH_HOME", help="Home folder with the files. Default: yours."
    ),
    as_json: bool = JSON,
) -> None:
    if client is None:
        if as_json:
            print_json(list_json())
        else:
            _print("\n".join(list_lines()) + "\n")
        return
    chosen = _client(client)
    places = _places(chosen, project, home)
    if remove:
        if write:
            raise CommandError("--write, --remove: give one of them", EXIT_USAGE)
        _remove(chosen, places, as_json)
        return
    if write_key and not write:
        raise CommandError("--write-key: works with --write only", EXIT_USAGE)
    url = base_url or running_url(run_dir) or DEFAULT_URL
    key = client_key(api_key, api_key_file)
    if write_key and not key:
        raise CommandError(
            "--write-key: there is no key; give it in EXPERTMESH_API_KEY", EXIT_USAGE
        )
    served = _offline(model, context, key) if offline else ask(url, key, model)
    secret = key if write_key else None
    with command_errors(EXIT_USAGE):
        mesh = Mesh(
            base_url=url,
            model=served.model,
            context=_context(served, context),
            max_output=max_tokens or 0,
            timeout_s=timeout,
            key=Key(variable=key_env, secret=secret) if served.wants_key else None,
        )
    if mesh.key and not mesh.key.secret and "," in os.environ.get(key_env, ""):
        sys.stderr.write(
            f"expertmesh: warning: {key_env} holds several keys, and a client would send them all; "
            "name a variable with one of them by --key-env\n"
        )
    setup = chosen.setup(mesh, places)
    if write:
        _write(chosen, setup, mesh, places, as_json)
    elif as_json:
        print_json(setup_json(chosen, setup, mesh))
    else:
        _print(setup_text(chosen, setup, mesh))


def _client(name: str) -> Client:
    if name not in CLIENTS:
        raise CommandError(f"{name!r} is none of the clients: {', '.join(CLIENTS)}", EXIT_USAGE)
    return CLIENTS[name]


def _places(client: Client, project: Path | None, home: Path | None) -> Places:
    for flag, folder in (("--dir", project), ("--home", home)):
        if folder is not None and not folder.is_dir():
            raise CommandError(f"{flag}: {folder} is no folder", EXIT_USAGE)
    if project is not None and not client.takes_folders:
        raise CommandError(
            f"--dir: {client.title} reads servers from the user's configuration only", EXIT_USAGE
        )
    return Places(
        home=home.absolute() if home else Path.home(),
        project=project.absolute() if project else None,
        environ={} if home else os.environ,
    )


def _offline(model: str | None, context: int | None, key: str | None) -> Served:
    if model is None or context is None:
        raise CommandError("--offline: needs --model-name and --context", EXIT_USAGE)
    return Served(model, None, wants_key=bool(key))


def _context(served: Served, wanted: int | None) -> int:
    """Raises ValueError."""
    if wanted is None:
        if served.context is None:
            raise ValueError("--context: missing, and the server does not say it")
        return served.context
    if served.context is not None and wanted > served.context:
        raise ValueError(f"--context: at most the server's {served.context}, got {wanted}")
    return wanted


def _record() -> Record:
    return Record(state_root() / "connect")


def _write(client: Client, setup: Setup, mesh: Mesh, places: Places, as_json: bool) -> None:
    record = _record()
    is_private = mesh.key is not None and mesh.key.secret is not None
    try:
        planned = plan(setup, client.name, places.project or places.home, record)
    except CannotMergeError as error:
        if not as_json:
            _print(setup_text(client, setup, mesh))
        raise CommandError(f"{error}; nothing was written", EXIT_FAILED) from None
    with command_errors(EXIT_FAILED):
        copies = carry_out(planned, record, private=is_private)
    if as_json:
        told = setup_json(client, setup, mesh)
        print_json({**told, "written": changes_json(planned, copies)})
    else:
        _print(written_text(client, setup, mesh, planned, copies))


def _remove(client: Client, places: Places, as_json: bool) -> None:
    record = _record()
    try:
        planned = plan_removal(client.name, places.project or places.home, record)
    except CannotMergeError as error:
        raise CommandError(f"{error}; nothing was changed", EXIT_FAILED) from None
    with command_errors(EXIT_FAILED):
        copies = carry_out(planned, record, private=False)
    if as_json:
        print_json({"client": client.name, "removed": changes_json(planned, copies)})
    else:
        _print(removed_text(planned, copies))


def _print(text: str) -> None:
    """As it is: neither wrapped nor coloured."""
    sys.stdout.write(text)
    sys.stdout.flush()
