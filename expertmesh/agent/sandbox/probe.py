"""Does a sandbox really hold on this machine? It is tried before it is relied on."""

import asyncio
import os
import tempfile
import threading
from pathlib import Path

from expertmesh.agent.sandbox.policy import Limits, Sandbox, SandboxUnavailableError

SCRIPT = """
if cat "$1"; then echo readable; fi
if echo x >> "$1"; then echo writable; fi
if echo x > "$2"; then echo creatable; fi
for space in net pid mnt ipc; do readlink /proc/self/ns/$space; done
echo inside
"""
LIMITS = Limits(wall_s=20.0)
"""For one look at a busy machine."""


def probe(sandbox: Sandbox, has_namespaces: bool) -> None:
    """Raises SandboxUnavailableError if it does not start, or does not hold.

    `has_namespaces`: it is one with processes, mounts and a network of its own.
    """
    with tempfile.TemporaryDirectory(prefix="expertmesh-probe-") as folder:
        # Open to all, so that nothing but the sandbox is in the way.
        outside = Path(folder)
        outside.chmod(0o777)
        secret, new = outside / "secret", outside / "new"
        secret.write_text("readable")
        secret.chmod(0o666)
        said = _said_by(sandbox, ["/bin/sh", "-c", SCRIPT, "probe", str(secret), str(new)])
        if "inside" not in said:
            raise SandboxUnavailableError(f"a command in it does not run: {' '.join(said)}")
        shared = has_namespaces and any(one in _our_namespaces() for one in said)
        if "readable" in said or "writable" in said or "creatable" in said or shared:
            raise SandboxUnavailableError(f"it does not hold: {' '.join(said)}")
        if new.exists() or secret.read_text() != "readable":
            raise SandboxUnavailableError("it does not hold: files outside were changed")


def _said_by(sandbox: Sandbox, argv: list[str]) -> list[str]:
    """Words on stdout, or if it said nothing, on stderr."""
    found: list[list[str]] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome = asyncio.run(sandbox.run(argv, limits=LIMITS))
            found.append((outcome.stdout.strip() or outcome.stderr).split())
        except (SandboxUnavailableError, OSError) as error:
            errors.append(error)

    thread = threading.Thread(target=run)  # whoever asks may be on an event loop
    thread.start()
    thread.join()
    if errors:
        raise SandboxUnavailableError(str(errors[0])) from None
    return found[0] if found else []


def _our_namespaces() -> set[str]:
    return {os.readlink(f"/proc/self/ns/{space}") for space in ("net", "pid", "mnt", "ipc")}
