"""A folder for the temporary files of one command, where it has no /tmp of its own."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expertmesh.agent.sandbox.folders.identity import Identity
from expertmesh.agent.sandbox.folders.removal import remove_tree

SCRATCH_BYTES = 256 << 20


@contextmanager
def scratch_folder(identity: Identity | None) -> Iterator[Path]:
    """Make it, and remove it with all that is in it, which nothing may be using any more."""
    folder = Path(tempfile.mkdtemp(prefix="expertmesh-sandbox-")).resolve()
    try:
        if identity is not None:
            os.chown(folder, identity.uid, identity.gid)
        yield folder
    finally:
        if folder.exists():  # what a command runs under may have done it
            remove_tree(folder)
