"""As whom are sandboxes tried: as root, and as a user. If this is root, a child becomes one."""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from expertmesh.agent.sandbox.folders.identity import Identity, as_user
from tests.support.places import ROOT

SOME_UID = 12345
SITE = Path(psutil.__file__).parents[1]


@dataclass(frozen=True)
class User:
    """Owns folders, and starts Python as itself."""

    uid: int
    is_another: bool
    """Not the one who runs the tests: that is root."""

    @property
    def identity(self) -> Identity | None:
        return Identity(self.uid, self.uid) if self.is_another else None

    def own(self, folder: Path) -> None:
        """All of it, and let it pass through what is above."""
        if self.is_another:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def start(
        self, arguments: list[str], folder: Path, variables: dict[str, str], **options: Any
    ) -> subprocess.Popen[str]:
        """Start Python with nothing but these variables in its environment."""
        return subprocess.Popen(
            as_user(self.identity, [python_for(self), *arguments]),
            cwd=folder,
            text=True,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{SITE}", **variables},
            **options,
        )


ROOT_USER = User(0, is_another=False)


def some_user() -> User:
    """Whoever runs the tests, or if that is root, somebody else."""
    uid = os.getuid()
    return User(uid or SOME_UID, is_another=uid == 0)


@cache
def python_for(user: User) -> str:
    """A Python of this version that the user can start, with our packages; or none: ""."""
    if not user.is_another:
        return sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        argv = [python, "-c", "import psutil, expertmesh.agent.sandbox.choose"]
        done = subprocess.run(
            as_user(user.identity, argv),
            env={"PYTHONPATH": f"{ROOT}:{SITE}"},
            cwd="/",
            capture_output=True,
        )
        if done.returncode == 0:
            return python
    return ""
