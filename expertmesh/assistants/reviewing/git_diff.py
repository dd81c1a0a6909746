"""What has changed since a revision? As git says it, whatever the user's settings for diffs are.

`core.fsmonitor`, external diffs and text conversions are programs that a repository's settings may
name; none of them is started. Filters of files (`filter.NAME.clean`) are, as git lfs needs them.
"""

import os
import subprocess
from pathlib import Path

_TIMEOUT_S = 60.0
_CONTEXT_LINES = 8


def git_diff(revision: str = "HEAD", folder: Path = Path()) -> str:
    """The unified diff from `revision` (or of A...B) to the working copy.

    Raises ValueError in one line: no git, no repository, no such revision.
    """
    if revision.startswith("-"):
        raise ValueError(f"--diff: {revision!r} is no revision")
    argv = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "diff"]
    argv += [
        "--no-color",
        "--no-relative",
        "--no-ext-diff",
        "--no-textconv",
        f"--unified={_CONTEXT_LINES}",
    ]
    argv += ["--src-prefix=a/", "--dst-prefix=b/", revision, "--"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, cwd=folder, env=environment, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise ValueError("--diff needs git, which is not installed") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"git diff took more than {_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise ValueError(f"git diff {revision}: {said[0]}")
    return done.stdout.decode("utf-8", "replace")
