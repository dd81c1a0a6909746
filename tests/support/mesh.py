"""Real processes for integration tests: a router, pools and an attention service on free ports."""

import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The kernel ends a service when the thread that started it is gone, for whatever reason. This one
# lives as long as the tests do.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="starter")
_SETPRIV = shutil.which("setpriv")
_DIE_WITH_US = (_SETPRIV, "--pdeathsig", "KILL") if _SETPRIV else ()

LISTENING = re.compile(r"listening (?:grpc|http)=(\S+?)(?: ops=(\S+))?$")


def _limit_to(open_files: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))


class ServiceProcess:
    """One service process; its log is read by a thread, its ports come from its log."""

    def __init__(self, module: str, flags: Sequence[str], *, open_files: int | None = None):
        """`open_files`: its limit, soft and hard, as `ulimit -n` sets it."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.process = _STARTER.submit(
            subprocess.Popen,
            [*_DIE_WITH_US, sys.executable, "-m", module, *flags],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
            preexec_fn=_limit_to(open_files) if open_files else None,
        ).result(20)
        self.module = module
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            self._queue.put(line.rstrip())
        self._queue.put(None)

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """The first log line, from now on or not yet waited for, that matches."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(
                    f"{self.module}: no line matches {pattern!r}; log:\n" + "\n".join(self.lines)
                )
            match = re.search(pattern, line)
            if match:
                return match

    def wait_listening(self) -> "ServiceProcess":
        match = self.wait_for(LISTENING.pattern)
        self.address, self.ops_address = match[1], match[2]
        return self

    def kill(self) -> None:
        """kill -9, as a crash."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, timeout_s: float = 15.0) -> int:
        """SIGTERM and wait; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.module} did not stop; log:\n" + "\n".join(self.lines)
            ) from None


PORTS = ("--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")


class Mesh:
    """Context manager; `pools` are extra flags per pool."""

    def __init__(
        self,
        model: Path,
        pools: Sequence[Sequence[str]],
        *,
        dtype: str = "f32",
        attention_flags: Sequence[str] = (),
        state: Path | None = None,
        router_flags: Sequence[str] = (),
        pool_module: str = "expert_svc",
    ):
        self._pool_module = pool_module
        self._router_flags = router_flags
        self._model = model
        self._pool_flags = pools
        self._common = ("--model", str(model), "--dtype", dtype, "--threads", "1")
        self._attention_flags = attention_flags
        self._state = state or model.parent / "router-epoch"
        self.pools: list[ServiceProcess] = []
        self.processes: list[ServiceProcess] = []

    def start(self, module: str, *flags: str) -> ServiceProcess:
        """One more process, stopped with the mesh."""
        process = ServiceProcess(module, flags)
        self.processes.append(process)
        return process

    def start_router(self, *ports: str) -> ServiceProcess:
        self.router = self.start(
            "router_svc",
            *ports,
            "--state",
            str(self._state),
            "--adopt-ms",
            "300",
            *self._router_flags,
        )
        return self.router.wait_listening()

    def start_pool(self, *flags: str, module: str = "") -> ServiceProcess:
        """`module`: another program than the mesh's pools run."""
        # Speed is not measured: placement must not depend on how busy the cores are.
        pool = self.start(
            module or self._pool_module,
            *PORTS,
            *self._common,
            "--router",
            self.router.address,
            "--experts-per-s",
            "1000",
            *flags,
        )
        self.pools.append(pool)
        return pool

    def start_attention(self, *flags: str) -> ServiceProcess:
        return self.start(
            "attention_svc",
            *PORTS,
            *self._common,
            "--router",
            self.router.address,
            "--kv-memory",
            "4MiB",
            *self._attention_flags,
            *flags,
        )

    def __enter__(self) -> "Mesh":
        try:
            self.start_router(*PORTS)
            for flags in self._pool_flags:
                self.start_pool(*flags)
            self.attention = self.start_attention()
            for pool in self.pools:
                pool.wait_listening()
            self.attention.wait_listening()
            self.attention.wait_for(r"attention ready$")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            if process.process.poll() is None:
                process.process.terminate()
                process.process.send_signal(signal.SIGCONT)  # a failed test may have stopped it
        for process in reversed(self.processes):
            try:
                process.process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
