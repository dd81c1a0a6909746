"""How is a path protected that does not exist? By an empty folder, which can be."""

import os
from collections.abc import Iterable
from pathlib import Path

from expertmesh.agent.sandbox.folders.identity import Identity


def make_missing(
    work: Path, protected: Iterable[Path], identity: Identity | None
) -> tuple[list[Path], list[Path]]:
    """(What to protect instead, which folders were made): of a missing path, what is missing first.

    Git takes an empty `.git` for none.
    """
    present, made = [], []
    for path in protected:
        steps = [one for one in reversed(path.parents) if work in one.parents] + [path]
        missing = next((one for one in steps if not os.path.lexists(one)), None)
        if missing is not None:
            try:
                missing.mkdir()
            except FileExistsError:
                pass  # another command's
            except OSError:
                continue  # nobody whose rights are not greater can make it, either
            else:
                made.append(missing)
                if identity is not None:
                    os.chown(missing, identity.uid, identity.gid)
        present.append(missing or path)
    return present, made


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that nobody has put anything into."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            continue  # used, or gone
