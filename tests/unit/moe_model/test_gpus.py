"""What torch says about GPUs, read into our words."""

from types import SimpleNamespace

import pytest
import torch

from moe_model.gpus import (
    driver_cuda,
    free_bytes,
    probe,
    read_gpus,
    release_unused,
    torch_bytes,
    unconnected,
    use,
    used_bytes,
    wait_for_device,
    wait_for_stream,
)
from tests.support.moe_model.fake_gpus import H200, gpus

OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version\nmore"
)
CARD = SimpleNamespace(name="NVIDIA L40S", total_memory=48 << 30, major=8, minor=9, uuid="ab-1")


def built_for_cuda(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    def init() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: CARD)


def test_a_torch_for_cpus_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    found = read_gpus()
    assert not found.found
    assert "is not built for CUDA" in found.problem


@pytest.mark.parametrize("error", [RuntimeError(OLD_DRIVER), AssertionError("not compiled")])
def test_what_torch_cannot_start_is_said_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_for_cuda(monkeypatch, error)
    found = read_gpus()
    assert found.found == ()
    assert found.problem == "torch finds no GPU: " + (
        "The NVIDIA driver on your system is too old (found version 11040)"
        if isinstance(error, RuntimeError)
        else "not compiled"
    )


def test_cards_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    built_for_cuda(monkeypatch)
    (card,) = read_gpus().found
    assert str(card) == "cuda:0 (NVIDIA L40S, 48.0 GiB, sm_89, never measured)"
    assert (card.uuid, card.problem) == ("ab-1", "")


def test_memory_is_read_and_a_lost_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30, 100))
    assert (free_bytes("cuda:0"), used_bytes("cuda:0")) == (30, 70)

    def lost(device: torch.device) -> None:
        raise torch.AcceleratorError("CUDA error: device is lost\nmore")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lost)
    with pytest.raises(ValueError, match=r"^cuda:1 does not answer: CUDA error: device is lost$"):
        free_bytes("cuda:1")


def test_what_torch_keeps_beside_its_tensors_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 100)
    assert torch_bytes("cuda:0") == (30, 70)


def test_what_loading_left_is_given_back_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[None] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(None))
    release_unused("cpu")
    assert not given_back
    release_unused("cuda:1")
    assert len(given_back) == 1


def test_a_lost_gpu_hides_no_other() -> None:
    def free(device: str) -> int:
        if device == "cuda:1":
            raise ValueError("cuda:1 does not answer: CUDA error: device is lost")
        return 5

    found, left = probe(gpus(H200, H200, H200)(), free)
    assert left == {"cuda:0": 5, "cuda:2": 5}
    assert [one.problem for one in found.found] == [
        "", "cuda:1 does not answer: CUDA error: device is lost", ""
    ]  # fmt: skip


def test_a_thread_takes_its_gpu_and_no_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    use("cpu")
    use("cuda:3")
    assert taken == [torch.device("cuda:3")]


def test_a_thread_waits_for_its_own_stream_of_a_gpu_and_for_no_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[torch.device] = []

    def stream_of(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(synchronize=lambda: waited.append(device))

    monkeypatch.setattr(torch.cuda, "current_stream", stream_of)
    wait_for_stream("cpu")
    wait_for_stream("cuda:3")
    assert waited == [torch.device("cuda:3")]


def test_a_process_waits_for_all_of_a_gpu_and_for_no_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    wait_for_device("cpu")
    wait_for_device("cuda:3")
    assert waited == [torch.device("cuda:3")]


def test_pairs_that_do_not_reach_each_other_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = gpus(H200, H200, H200)().found
    reach = {(0, 1): True, (0, 2): False, (1, 2): True}
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda one, other: reach[one, other])
    assert unconnected(cards) == [("cuda:0", "cuda:2")]


def test_without_a_driver_there_is_no_version() -> None:
    assert driver_cuda("no-such-library.so") is None
