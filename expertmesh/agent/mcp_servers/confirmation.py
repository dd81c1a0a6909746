"""Has the user agreed that this server runs, with exactly this command and these files?

An MCP server may do all that its user may. So each is asked about once: by its command line, and by
a digest over that, its environment, the program's file and every file that the command line names.
When any of them changes it is asked about again. What a program loads by itself is not covered, nor
what `npx` and the like fetch.
"""

import hashlib
import json
import os
import shlex
import shutil
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from expertmesh.agent.mcp_servers.config import ServerConfig
from expertmesh.agent.record.run_folder import write_private

_MAX_KEPT = 200


@dataclass(frozen=True)
class ServerQuestion:
    """What the user is asked about a server."""

    name: str
    command_line: str
    program: str
    """The file that is run."""
    variables: tuple[str, ...]
    """Names of the variables that it gets."""
    digest: str


AskServer = Callable[[ServerQuestion], Awaitable[bool]]


class NotConfirmedError(Exception):
    """The user did not agree, or nobody could be asked."""


def question_of(server: ServerConfig, work_dir: Path) -> ServerQuestion:
    """Reads the files that belong to it. Raises ValueError if there is no such program."""
    folder = work_dir / server.cwd if server.cwd else work_dir
    path = server.env.get("PATH", os.environ.get("PATH", os.defpath))
    command = str(folder / server.command) if "/" in server.command else server.command
    program = shutil.which(command, path=path)
    if program is None:
        raise ValueError(f"MCP server {server.name}: there is no program {server.command}")
    program = os.path.realpath(program)
    parts = {
        "argv": [server.command, *server.args],
        "cwd": str(folder.resolve()),
        "env": server.env,
        "program": program,
        "files": {word: _digest_of(folder / word) for word in (program, *server.args)},
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "replace"))
    return ServerQuestion(
        server.name,
        shlex.join([server.command, *server.args]),
        program,
        tuple(sorted(server.env)),
        digest.hexdigest(),
    )


class Confirmations:
    """The digests that were agreed to, in a file that only its owner can read and write."""

    def __init__(self, path: Path):
        self._path = path

    async def require(self, question: ServerQuestion, ask: AskServer | None) -> None:
        """Returns if the user agrees or has agreed. Raises NotConfirmedError, OSError."""
        kept = self._read()
        if question.digest in kept:
            return
        if ask is None:
            raise NotConfirmedError(
                f"MCP server {question.name} ({question.command_line}) was not confirmed yet, and "
                "there is no terminal to ask on: run the command once in one"
            )
        if not await ask(question):
            raise NotConfirmedError(f"MCP server {question.name} was not confirmed")
        kept[question.digest] = {"command": question.command_line, "at": round(time.time())}
        latest = dict(list(kept.items())[-_MAX_KEPT:])
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._path, json.dumps(latest, indent=1).encode())

    def _read(self) -> dict[str, object]:
        """Nothing from a file that others could have written, or that is damaged."""
        try:
            with open(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
                found = os.fstat(file.fileno())
                if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
                    return {}
                kept = json.load(file)
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}


def _digest_of(path: Path) -> str | None:
    """Of a regular file; None for anything else, such as a word that is no file's name."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
