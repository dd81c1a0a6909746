"""How does a process of root become a user's?

Popen's own `user` forks where it otherwise calls vfork, and between fork and exec run what
libraries have registered for a fork: of gRPC a poller, which one child in a hundred died of.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Identity(NamedTuple):
    """A user and a group that are not root's."""

    uid: int
    gid: int


def become(identity: Identity) -> None:
    """Turn this process, which is root's, into that user's for ever. Raises OSError."""
    os.setgroups([])
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


NOBODY = Identity(65534, 65534)


def give_away(*paths: Path) -> None:
    """To nobody if this is root: commands run as the owner of their folder, and never as root."""
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, *NOBODY, follow_symlinks=False)


def as_user(identity: Identity | None, argv: Sequence[str]) -> list[str]:
    """The command line that runs this one as that user, in the same process; None: as it is."""
    if identity is None:
        return list(argv)
    ids = map(str, identity)
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), *ids, *argv]


if __name__ == "__main__":
    become(Identity(int(sys.argv[1]), int(sys.argv[2])))
    try:
        os.execvp(sys.argv[3], sys.argv[3:])
    except OSError as error:
        sys.exit(f"{sys.argv[3]} cannot be started: {error.strerror}")
