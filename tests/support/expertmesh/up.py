"""`expertmesh up` in a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support.places import ROOT

START_S = 120.0


def expertmesh(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "expertmesh", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_S,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


class Up:
    """`expertmesh up` in front, as a newcomer runs it."""

    def __init__(self, run_dir: Path, *flags: str):
        self.run_dir = run_dir
        self.output_path = run_dir.parent / "output"
        with open(self.output_path, "wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "expertmesh",
                    "up",
                    "--http-port",
                    "0",
                    "--run-dir",
                    str(run_dir),
                    *flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def state(self) -> dict:
        path = self.run_dir / "cluster.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def await_ready(self) -> dict:
        deadline = time.monotonic() + START_S
        while self.state().get("phase") != "ready":
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)
        return self.state()

    def await_phase(self, phase: str) -> None:
        deadline = time.monotonic() + START_S
        while self.state().get("phase") != phase:
            assert time.monotonic() < deadline, self.state()
            time.sleep(0.1)

    def await_output(self, text: str) -> None:
        deadline = time.monotonic() + START_S
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)


def pids_of(state: dict) -> dict[str, int]:
    return {service["name"]: service["pid"] for service in state["services"]}
