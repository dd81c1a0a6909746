"""`expertmesh certs`: certificates for a mesh over several machines."""

from pathlib import Path

import typer

from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_USAGE,
    JSON,
    CommandError,
    help_text,
    print_json,
    stdout,
)
from expertmesh.help_pages import CommandGroup

_HELP = f"""Make a CA and certificates for mTLS between the services.

Each host needs ca.pem and the certificate and key of what runs there, and nothing else; keep
ca-key.pem off the hosts. A certificate names a role, which decides what its owner may do: only
attention may call pools, only pools and attention may join the router, only gateways may ask for
text. With --member it also names one member: no other can take that member's place, and it cannot
take another's.

Examples:

  expertmesh certs --out mesh-certs

  expertmesh certs --out mesh-certs \\
    --member expert/east --member expert/west --member attention/a1

  expertmesh certs renew --out mesh-certs   # before they expire

  expertmesh certs --out mesh-certs --days 90 --force   # a new CA for all hosts

{EXIT_CODES_HELP}
"""

_RENEW_HELP = f"""Replace the keys and certificates in the folder, signed by the CA there.

Copy them to the hosts: services read the new files within seconds (at once on SIGHUP), and no
request is lost. --member adds a certificate for a new member.

Examples:

  expertmesh certs renew --out mesh-certs

  expertmesh certs renew --out mesh-certs --member expert/north

{EXIT_CODES_HELP}
"""

_ADD_HELP = f"""Start changing the CA: make a new one, trusted beside the old one.

Then copy ca.pem to every host; run `expertmesh certs renew`, and copy each host's certificate and
key; run `expertmesh certs drop-ca`, and copy ca.pem again. Finish each step on all hosts before the
next.

Examples:

  expertmesh certs add-ca --out mesh-certs

{EXIT_CODES_HELP}
"""

_DROP_HELP = f"""Finish changing the CA: trust only the new one. See `expertmesh certs add-ca`.

Examples:

  expertmesh certs drop-ca --out mesh-certs

{EXIT_CODES_HELP}
"""

OUT = typer.Option(..., envvar="EXPERTMESH_OUT", help="Folder with the CA and the certificates.")
DAYS = typer.Option(365, envvar="EXPERTMESH_DAYS", help="Days until the certificates expire.")
MEMBER = typer.Option(
    [],
    envvar="EXPERTMESH_MEMBER",
    help="expert/ID or attention/ID: make a certificate for this member only; repeat for more.",
)


def register(app: typer.Typer) -> None:
    group = CommandGroup(help=help_text(_HELP), invoke_without_command=True)
    group.callback()(certs)
    group.command("renew", help=help_text(_RENEW_HELP))(renew_certs)
    group.command("add-ca", help=help_text(_ADD_HELP))(add)
    group.command("drop-ca", help=help_text(_DROP_HELP))(drop)
    app.add_typer(group, name="certs")


def certs(
    context: typer.Context,
    out: Path | None = typer.Option(None, envvar="EXPERTMESH_OUT", help="Folder to write to."),
    days: int = DAYS,
    member: list[str] = MEMBER,
    force: bool = typer.Option(
        False,
        "--force",
        envvar="EXPERTMESH_FORCE",
        help="Replace an existing CA; its certificates become useless.",
    ),
    as_json: bool = JSON,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from expertmesh.certs import CA_NAME, create_mesh_certificates, key_path

    if out is None:
        raise CommandError("--out: missing; give the folder to write to", EXIT_USAGE)
    folder = out.absolute()
    names = create_mesh_certificates(folder, days=days, members=member, force=force)
    done = f"{folder}: a CA and {len(names)} certificates, valid for {days} days\n"
    warning = (
        f"\nKeep {key_path(folder, CA_NAME)} off the hosts: anyone who has it can join the mesh."
    )
    _report(folder, names, days, as_json, done, warning)


def renew_certs(
    out: Path = OUT,
    days: int = DAYS,
    member: list[str] = MEMBER,
    within: float | None = typer.Option(
        None,
        envvar="EXPERTMESH_WITHIN",
        min=0,
        help="Renew only those that expire within this many days. Default: all.",
    ),
    as_json: bool = JSON,
) -> None:
    from expertmesh.certs import renew

    folder = out.absolute()
    names = renew(folder, days=days, members=member, within_days=within)
    _report(folder, names, days, as_json, f"{folder}: {len(names)} certificates renewed")


def add(out: Path = OUT) -> None:
    from expertmesh.certs import add_ca

    folder = out.absolute()
    add_ca(folder)
    stdout().print(f"{folder / 'ca.pem'}: copy it to every host, then `expertmesh certs renew`")


def drop(out: Path = OUT) -> None:
    from expertmesh.certs import drop_ca

    folder = out.absolute()
    drop_ca(folder)
    stdout().print(f"{folder / 'ca.pem'}: copy it to every host")


def _report(
    folder: Path, names: list[str], days: int, as_json: bool, done: str, warning: str = ""
) -> None:
    """Say what was done, and with which flags each service uses its certificate."""
    from expertmesh.certs import CA_NAME, cert_path, key_path

    flags = {
        name: [
            *("--tls-ca", str(cert_path(folder, CA_NAME))),
            *("--tls-cert", str(cert_path(folder, name))),
            *("--tls-key", str(key_path(folder, name))),
        ]
        for name in names
    }
    if as_json:
        print_json({"folder": str(folder), "days": days, "flags": flags})
    else:
        lines = [f"{name}:\n  {' '.join(values)}" for name, values in flags.items()]
        text = "\n".join([done, *lines, *([warning] if warning else [])])
        stdout().print(text, markup=False, soft_wrap=True)
