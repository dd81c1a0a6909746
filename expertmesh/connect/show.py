"""How is a setup shown: to people, ready to be copied, and to scripts?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expertmesh.connect.client import Client, Setup
from expertmesh.connect.known import CLIENTS
from expertmesh.connect.mask import diff, without
from expertmesh.connect.mesh import Mesh
from expertmesh.connect.write import Planned, content


def list_lines() -> list[str]:
    """A line for each client."""
    width = max(map(len, CLIENTS))
    return [f"{name.ljust(width)}  {one.line}" for name, one in CLIENTS.items()]


def list_json() -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "title": one.title,
            "tried": one.tried,
            "api": one.api,
            "program": one.program,
            "takes_folders": one.takes_folders,
        }
        for one in CLIENTS.values()
    ]


def setup_text(client: Client, setup: Setup, mesh: Mesh) -> str:
    """All that has to be where, and how to go on."""
    secret = mesh.key.secret if mesh.key else None
    parts = []
    for file in setup.files:
        there = "; it exists: --write merges this into it" if file.path.exists() else ""
        parts.append(f"# {file.path}{there}\n{without(content(file), secret).rstrip()}\n")
    text = "\n".join(parts)
    return f"{text}\n{_go_on(client, setup)}"


def written_text(
    client: Client, setup: Setup, mesh: Mesh, planned: list[Planned], copies: Mapping[Path, Path]
) -> str:
    """What has changed, and how to go on."""
    secret = mesh.key.secret if mesh.key else None
    text = _changes_text(planned, copies, secret)
    if not any(one.changes for one in planned):
        text = "nothing to change: " + ", ".join(str(one.path) for one in planned) + "\n"
    return f"{text}\n{_go_on(client, setup)}"


def removed_text(planned: list[Planned], copies: Mapping[Path, Path]) -> str:
    if not any(one.changes for one in planned):
        return "nothing to take out\n"
    return _changes_text(planned, copies, None)


def setup_json(client: Client, setup: Setup, mesh: Mesh) -> dict[str, Any]:
    secret = mesh.key.secret if mesh.key else None
    return {
        "client": client.name,
        "mesh": {
            "base_url": mesh.api,
            "model": mesh.model,
            "context": mesh.context,
            "max_tokens": mesh.output,
            "timeout_s": mesh.timeout_s,
            "wants_key": mesh.key is not None,
            "key_env": mesh.key.variable if mesh.key else None,
        },
        "files": [
            {
                "path": str(file.path),
                "exists": file.path.exists(),
                "content": without(content(file), secret),
            }
            for file in setup.files
        ],
        "environment": dict(setup.environment),
        "command": setup.command,
        "notes": list(setup.notes),
    }


def changes_json(planned: list[Planned], copies: Mapping[Path, Path]) -> list[dict[str, Any]]:
    return [
        {
            "path": str(one.path),
            "changed": one.changes,
            "exists": one.new is not None,
            "backup": str(copies[one.path]) if one.path in copies else None,
        }
        for one in planned
    ]


def _changes_text(planned: list[Planned], copies: Mapping[Path, Path], secret: str | None) -> str:
    parts = [diff(str(one.path), one.old, one.new, secret) for one in planned if one.changes]
    parts += [f"copy of {path} as it was: {copy}\n" for path, copy in copies.items()]
    return "".join(parts)


def _go_on(client: Client, setup: Setup) -> str:
    lines = [f"export {name}=...   # {what}" for name, what in setup.environment.items()]
    lines.append(f"{setup.command}   # starts {client.title}")
    return "\n".join([*lines, *(f"\n{note}" for note in setup.notes)]) + "\n"
