"""Where does this user's state live: run folders of clusters, and what the agent keeps?"""

import os
import tempfile
from pathlib import Path


def state_root() -> Path:
    """`$XDG_STATE_HOME/expertmesh`, by default in `~/.local/state`; if another user owns that (sudo
    keeps HOME), a folder among the temporary ones."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    root /= "expertmesh"
    existing = next(path for path in (root, *root.parents) if path.exists())
    if existing.stat().st_uid == os.geteuid():
        return root
    return Path(tempfile.gettempdir()) / f"expertmesh-{os.geteuid()}"
