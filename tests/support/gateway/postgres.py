"""A PostgreSQL server of the test's own, in a temporary folder, reached through a socket there."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_START_S = 60.0


def programs() -> Path:
    """The folder of the server's programs. Skips the test where they are not installed."""
    pytest.importorskip("psycopg", reason="pip install 'expertmesh[postgres]'")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = [Path(one).parent for one in [shutil.which("postgres")] if one]
    for folder in (*debian, *on_path):
        if all((folder / name).exists() for name in ("postgres", "initdb", "pg_isready")):
            return folder
    pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")


class Server:
    """Start, stop, kill and start again; it never runs as root."""

    def __init__(self, folder: Path):
        self._bin = programs()
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
            folder.chmod(0o700)
        self._run("initdb", "-D", str(self._data), "-U", "tester", "-A", "trust", "--no-sync")

    def url(self, **options: str) -> str:
        told = "".join(f"&{name}={value}" for name, value in options.items())
        return f"postgresql://tester@/postgres?host={self._folder}{told}"

    def start(self) -> None:
        command = [self._bin / "postgres", "-D", self._data, "-k", self._folder, "-h", ""]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd="/", **self._identity()
            )
        deadline_s = time.monotonic() + _START_S
        while self._run("pg_isready", "-q", "-h", str(self._folder), check=False):
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline_s, "PostgreSQL did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START_S)
            self._process = None

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd="/",
            capture_output=True,
            timeout=_START_S,
            **self._identity(),
        )
        assert not check or done.returncode == 0, done.stderr
        return done.returncode

    def _identity(self) -> dict[str, int]:
        return {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid}


@contextmanager
def running_server() -> Iterator[Server]:
    """Skips the test where PostgreSQL or its driver is not installed."""
    programs()
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
