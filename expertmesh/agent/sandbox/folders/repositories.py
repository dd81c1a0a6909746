"""Which files make git run programs, and so must not be changed by a model's commands?

Git takes programs from a repository's configuration and hooks, and runs some of them when somebody
only asks for the status, as many prompts and editors do. So a repository is read-only as a whole:
its `.git`, and those of repositories inside it, which the outer one's status looks into.
"""

import logging
import os
import re
from collections import deque
from pathlib import Path

logger = logging.getLogger(__name__)

GIT = ".git"
BARE = ("HEAD", "objects", "refs")
"""Without `.git`, git takes a folder with these for a repository itself."""
MODULES = ".gitmodules"
MOST_FOLDERS = 20_000


def paths_of_git(work: Path) -> list[Path]:
    """What to protect for git's sake, whether it exists or not."""
    found = [work / GIT, *(folder / GIT for folder in _declared(work))]
    pending, looked_at = deque([str(work)]), 0  # the upper ones first
    while pending and looked_at < MOST_FOLDERS:
        folder = pending.popleft()
        looked_at += 1
        try:
            with os.scandir(folder) as children:
                for child in children:
                    if child.name == GIT:
                        found.append(Path(child.path))
                    elif child.is_dir(follow_symlinks=False):
                        pending.append(child.path)
        except OSError:
            continue  # not readable: not to be changed, either
    if pending:
        logger.warning("%s has more folders than are searched for repositories", work)
    return list(dict.fromkeys(found))


def is_bare(folder: Path) -> bool:
    """Whether git would take the folder itself for a repository."""
    return not (folder / GIT / BARE[0]).exists() and all((folder / name).exists() for name in BARE)


def disarm(work: Path) -> None:
    """Undo that a command has turned the work folder, which was none, into a repository."""
    if is_bare(work):
        head = work / BARE[0]
        head.rename(head.with_name(f"{head.name}.made-in-sandbox"))
        logger.warning("%s was about to become a repository: renamed %s", work, head.name)


def _declared(work: Path) -> list[Path]:
    """The folders of submodules, which may not have been fetched."""
    try:
        text = (work / MODULES).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    paths = re.findall(r"^\s*path\s*=\s*(.+?)\s*$", text, re.MULTILINE)
    folders = [work / path for path in paths]
    return [one for one in folders if one.is_dir() and one.resolve() == one and work in one.parents]
