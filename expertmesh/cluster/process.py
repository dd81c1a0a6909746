"""How is one service of the local cluster started, watched and stopped?"""

import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil

from expertmesh.cluster.children import child_environment, python_module
from expertmesh.cluster.spec import ServiceSpec

_LISTENING = re.compile(r"\blistening ((?:(?:grpc|ops|http)=\S+ ?)+)\s*$")
_READY_TIMEOUT_S = 1.0
TAIL_LINES = 15


class ServiceProcess:
    """A child process with a log file; no method waits, except `kill`."""

    def __init__(self, spec: ServiceSpec, log_path: Path):
        self.spec = spec
        self.log_path = log_path
        self.addresses: dict[str, str] = {}
        """Bound addresses by kind: grpc, ops, http. Empty until the service has logged them."""
        self._had_address = ""
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_offset = 0
        self._unfinished_line = b""

    def start(
        self, addresses_of: Mapping[str, Mapping[str, str]], *, same_address: bool = False
    ) -> None:
        """Start it; after its death, start it again and append to its log.

        Call this from the main thread (see guard.py). `addresses_of`: service name -> its
        addresses. `same_address`: bind the gRPC address it had before, because others know it.
        """
        argv = python_module("expertmesh.cluster.guard", str(os.getpid()), self.spec.module)
        argv += self.spec.flags
        for flag, service in self.spec.dials:
            argv += [flag, addresses_of[service]["grpc"]]
        if same_address and self._had_address:
            argv += ["--listen", self._had_address]
        is_first = self._popen is None
        self.addresses, self._unfinished_line = {}, b""
        with open(self.log_path, "wb" if is_first else "ab") as log:
            self._log_offset = log.tell()
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**child_environment(self.spec.threads), **self.spec.environment},
                start_new_session=True,  # Ctrl-C reaches only the supervisor, which stops in order
            )

    @property
    def pid(self) -> int | None:
        return None if self._popen is None else self._popen.pid

    @property
    def started_at(self) -> float | None:
        """Start time of the process; with it the pid names one process even after pid reuse."""
        if self._popen is None:
            return None
        try:
            return psutil.Process(self._popen.pid).create_time()
        except psutil.NoSuchProcess:
            return None

    def exit_text(self) -> str | None:
        """How it ended; None while it runs or if it was never started."""
        status = None if self._popen is None else self._popen.poll()
        if status is None:
            return None
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"exited with status {status}"

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def readiness(self, client: httpx.Client) -> tuple[bool, str]:
        """(ready, what it is doing), from its log and its /readyz."""
        self._read_addresses()
        where = self.addresses.get("ops") or self.addresses.get("http")
        ready, text = ask_readiness(where, client, "starting")
        if ready:  # what it served at may have been logged since
            self._read_addresses()
        return ready and self._serves, text

    @property
    def _serves(self) -> bool:
        """Whether it has logged where; attention services log earlier where to ask for news."""
        return bool(self.addresses.keys() & {"grpc", "http"})

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its log."""
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                return "".join(deque(log, maxlen=lines)).rstrip("\n")
        except OSError as error:
            return f"(log {self.log_path}: {error.strerror})"

    def terminate(self) -> None:
        if self._popen is not None:
            self._popen.terminate()

    def kill(self) -> None:
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()

    def _read_addresses(self) -> None:
        """Search what was logged since the last call for the line with the bound addresses."""
        if self._serves:
            return
        with open(self.log_path, "rb") as log:
            log.seek(self._log_offset)
            new = log.read()
            self._log_offset = log.tell()
        *lines, self._unfinished_line = (self._unfinished_line + new).split(b"\n")
        for line in lines:
            found = _LISTENING.search(line.decode("utf-8", "replace"))
            if found:
                pairs = (part.partition("=") for part in found.group(1).split())
                self.addresses |= {kind: address for kind, _, address in pairs}
                self._had_address = self.addresses.get("grpc", self._had_address)


def ask_readiness(where: str | None, client: httpx.Client, silent: str) -> tuple[bool, str]:
    """(ready, what it is doing) by the /readyz at `where`; `silent`: the text without an answer."""
    if where is None:
        return False, "starting"
    try:
        answer = client.get(f"http://{where}/readyz", timeout=_READY_TIMEOUT_S)
    except httpx.HTTPError:
        return False, silent
    return answer.status_code == 200, readiness_text(answer)


def readiness_text(answer: httpx.Response) -> str:
    """One line from a /readyz answer: its plain text, or `reason` or `status` of its JSON."""
    if answer.headers.get("content-type", "").startswith("application/json"):
        try:
            page = answer.json()
        except ValueError:
            return "not ready"
        if isinstance(page, dict):
            return str(
                page.get("reason") or page.get("detail") or page.get("status") or "not ready"
            )
    return answer.text.strip().partition("\n")[0] or "not ready"
