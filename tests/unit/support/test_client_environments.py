"""Is a client installed once, however many runs want it at the same time?"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.clients import environments


def test_of_two_runs_that_want_a_client_one_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second would clear the folder that the first has half filled."""
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "clients")
    both = threading.Barrier(2)
    made: list[str] = []

    def run(command: list[str], folder: Path) -> None:
        if "venv" not in command:
            return
        made.append(command[-1])
        Path(command[-1]).mkdir(exist_ok=True)
        with suppress(threading.BrokenBarrierError):  # the other one waits for the lock
            both.wait(timeout=0.2)

    monkeypatch.setattr(environments, "_run", run)
    with ThreadPoolExecutor(2) as threads:
        interpreters = list(threads.map(environments.python, ["a"] * 2, ["a==1"] * 2))
    assert interpreters == [tmp_path / "clients" / "a" / "bin" / "python"] * 2
    assert made == [str(tmp_path / "clients" / "a")]
