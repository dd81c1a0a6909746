"""`expertmesh certs`: certificates for a mesh over several machines."""

from pathlib import Path

import typer

from expertmesh.console import EXIT_CODES_HELP, help_text, print_json, stdout
from rpc.tls import ROLES

_HELP = f"""Make a CA and one certificate per role for mTLS between the services.

Each host needs ca.pem and the certificate and key of the role that runs there, and nothing else;
keep ca-key.pem off the hosts. Only attention may call Execute, only pools and attention may join,
only gateways may generate: the role is in the certificate.

Examples:

  expertmesh certs --out mesh-certs

  expertmesh certs --out mesh-certs --days 90 --force   (a new CA; every host needs new files)

{EXIT_CODES_HELP}
"""


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_HELP))(certs)


def certs(
    out: Path = typer.Option(..., envvar="EXPERTMESH_OUT", help="Folder to write to."),
    days: int = typer.Option(365, envvar="EXPERTMESH_DAYS", help="Days until they expire."),
    force: bool = typer.Option(
        False, "--force", envvar="EXPERTMESH_FORCE", help="Replace an existing CA."
    ),
    as_json: bool = typer.Option(False, "--json", envvar="EXPERTMESH_JSON", help="For scripts."),
) -> None:
    from expertmesh.certs import CA_NAME, cert_path, create_mesh_certificates, key_path

    folder = out.absolute()
    create_mesh_certificates(folder, days=days, force=force)
    flags = {
        role: [
            *("--tls-ca", str(cert_path(folder, CA_NAME))),
            *("--tls-cert", str(cert_path(folder, role))),
            *("--tls-key", str(key_path(folder, role))),
        ]
        for role in ROLES
    }
    if as_json:
        print_json({"folder": str(folder), "days": days, "flags": flags})
        return
    console = stdout()
    console.print(f"{folder}: a CA and {len(ROLES)} certificates, valid for {days} days\n")
    for role, values in flags.items():
        console.print(f"{role}:\n  {' '.join(values)}", markup=False, soft_wrap=True)
    console.print(
        f"\nKeep {key_path(folder, CA_NAME)} away from the hosts: who has it can join the mesh.",
        markup=False,
        soft_wrap=True,
    )
