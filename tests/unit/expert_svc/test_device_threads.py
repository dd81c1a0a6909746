"""Every thread of a pool that launches kernels takes the pool's GPU first."""

import threading

import pytest

from expert_svc import executor as executor_module
from expert_svc import weight_store as store_module
from expert_svc.executor import Executor
from expert_svc.weight_store import WeightStore
from rpc.mesh.pieces import Pieces


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(device, thread), in order."""
    seen: list[tuple[str, str]] = []

    def use(device: object) -> None:
        seen.append((str(device), threading.current_thread().name))

    monkeypatch.setattr(executor_module, "use", use)
    monkeypatch.setattr(store_module, "use", use)
    return seen


def test_the_thread_of_long_calls(taken: list[tuple[str, str]]) -> None:
    executor = Executor(lambda call: None, inline_rows=0, device="cuda:2")
    executor._thread.submit(lambda: None).result(10)
    executor.close()
    assert taken == [("cuda:2", "compute_0")]


def test_whichever_thread_loads_or_unloads(taken: list[tuple[str, str]]) -> None:
    store = WeightStore.__new__(WeightStore)
    store.device, store.pieces = "cuda:1", Pieces()
    for work in (store.load, store.unload):
        thread = threading.Thread(target=work, args=(Pieces(),), name="loader")
        thread.start()
        thread.join(10)
    assert taken == [("cuda:1", "loader")] * 2
