"""How is a client's program run? By itself: its environment has nothing of ours."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUN_S = 240
Finished = subprocess.CompletedProcess[str]


def environment(home: Path, variables: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), **variables}


def run(
    command: list[str], home: Path, variables: Mapping[str, str], *, question: str = ""
) -> Finished:
    """The command, in and with this home; `question` is its standard input."""
    return subprocess.run(
        command,
        cwd=home,
        env=environment(home, variables),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        input=question,
        check=False,
    )


def printed(command: list[str], home: Path, variables: Mapping[str, str]) -> str:
    """What the command prints; it must succeed."""
    done = run(command, home, variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def last_line(command: list[str], home: Path, variables: Mapping[str, str]) -> Any:
    """What the command prints as its last line, as JSON."""
    return json.loads(printed(command, home, variables).splitlines()[-1])
