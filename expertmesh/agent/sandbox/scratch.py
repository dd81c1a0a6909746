"""A folder for the temporary files of one command, where it has no /tmp of its own."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expertmesh.agent.sandbox.identity import Identity

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
        remove_tree(folder)


def remove_tree(folder: Path) -> None:
    """Remove a folder however deep it is, and whatever its owner may do in it.

    shutil.rmtree would follow a tree of ten thousand levels with as many calls. Here folders are
    first moved up. Raises OSError.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        moved, unique = 0, secrets.token_hex(8)
        while names := os.listdir(top):
            for name in names:
                if not _is_folder(name, top):
                    os.unlink(name, dir_fd=top)
                    continue
                os.chmod(name, 0o700, dir_fd=top)
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                try:
                    for child in os.listdir(inner):
                        if _is_folder(child, inner):
                            os.chmod(child, 0o700, dir_fd=inner)  # or it cannot be moved
                            moved += 1
                            new = f"{unique}-{moved}"
                            os.rename(child, new, src_dir_fd=inner, dst_dir_fd=top)
                        else:
                            os.unlink(child, dir_fd=inner)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def _is_folder(name: str, parent: int) -> bool:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    return (status.st_mode & 0o170000) == 0o040000
