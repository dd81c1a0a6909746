"""How does a process of root become a user's?"""

import os
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
