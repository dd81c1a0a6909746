"""As whom do commands run? Never as root: started as root, as the owner of the work folder."""

import os
import stat
from pathlib import Path

from expertmesh.agent.sandbox.folders.identity import Identity
from expertmesh.agent.sandbox.policy import SandboxUnavailableError

NOGROUP = 65534


def identity_for(work_dir: Path) -> Identity | None:
    """Whom to become before commands run in the folder; None: this is not root, stay.

    Raises SandboxUnavailableError if the folder is root's.
    """
    if os.geteuid() != 0:
        return None
    owner = work_dir.stat()
    if owner.st_uid == 0:
        raise SandboxUnavailableError(
            f"{work_dir} belongs to root, and commands of a model never run as root. Either start "
            f"this as another user, or give the folder to one: chown -R nobody: {work_dir}"
        )
    # A folder of root's group must not bring the group along.
    return Identity(owner.st_uid, owner.st_gid or NOGROUP)


def can_reach(identity: Identity | None, path: Path) -> bool:
    """Whether that user can pass through all folders on the way, and open what is there."""
    if identity is None:
        wanted = os.R_OK | (os.X_OK if path.is_dir() else 0)
        return os.access(path, wanted)
    for place in (*reversed(path.parents), path):
        try:
            status = place.stat()
        except OSError:
            return False
        wanted = 0o1 if place != path else (0o5 if stat.S_ISDIR(status.st_mode) else 0o4)
        if status.st_uid == identity.uid:
            granted = status.st_mode >> 6
        elif status.st_gid == identity.gid:
            granted = status.st_mode >> 3
        else:
            granted = status.st_mode
        if granted & wanted != wanted:
            return False
    return True
