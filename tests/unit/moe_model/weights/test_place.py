"""--device: what auto chooses, what is refused, and what the one line about it says."""

from collections.abc import Callable

import pytest

from moe_model.gpus import Gpu, Gpus, check_flags
from moe_model.weights.held_formats import HeldFormats
from moe_model.weights.place import Place, choose_place
from tests.support.moe_model.fake_gpus import H100, H200, RTX_4090, T4, gpus

BF16 = HeldFormats(compute_dtype="bf16", experts="fp8", linears="bf16")
F32 = HeldFormats(compute_dtype="f32", experts="f32", linears="f32")


def place(
    device: str,
    read: Callable[[], Gpus],
    *,
    formats: HeldFormats = BF16,
    too_small: tuple[str, ...] = (),
) -> Place:
    def why_too_small(gpu: Gpu, _: HeldFormats) -> str:
        return f"{gpu.device} is too small" if gpu.device in too_small else ""

    return choose_place(device, lambda kind: formats, why_too_small, read=read)


def test_auto_is_a_gpu_that_the_kernels_take() -> None:
    chosen = place("auto", gpus(H200))
    assert chosen.device == "cuda:0"
    assert str(chosen) == "cuda:0 (NVIDIA H200, 140.0 GiB, sm_90)"
    assert "never measured" in str(place("auto", gpus(RTX_4090)))


def test_auto_goes_past_gpus_that_are_too_old_or_too_small() -> None:
    assert place("auto", gpus(T4, H200, H100), too_small=("cuda:1",)).device == "cuda:2"


def test_auto_goes_past_a_gpu_that_does_not_answer() -> None:
    def why_too_small(gpu: Gpu, _: HeldFormats) -> str:
        if gpu.index == 0:
            raise ValueError("cuda:0 does not answer: device is lost")
        return ""

    chosen = choose_place("auto", lambda kind: BF16, why_too_small, read=gpus(H200, H100))
    assert chosen.device == "cuda:1"
    alone = choose_place("auto", lambda kind: BF16, why_too_small, read=gpus(H200))
    assert str(alone) == "cpu: cuda:0 does not answer: device is lost"


@pytest.mark.parametrize(
    ("read", "formats", "too_small", "reason"),
    [
        (gpus(), BF16, (), "torch finds no GPU: Found no NVIDIA driver"),
        (gpus(T4), BF16, (), r"need compute capability 8.0, cuda:0 \(Tesla T4\) has 7.5"),
        (gpus(H200, has_triton=False), BF16, (), "the CUDA kernels need Triton"),
        (gpus(H200), F32, (), "the CUDA kernels take bfloat16 rows"),
        (gpus(H200, H100), BF16, ("cuda:0", "cuda:1"), "cuda:0 is too small; cuda:1 is too small"),
    ],
)
def test_auto_is_else_the_cpu_and_says_why(
    read: Callable[[], Gpus], formats: HeldFormats, too_small: tuple[str, ...], reason: str
) -> None:
    chosen = place("auto", read, formats=formats, too_small=too_small)
    assert chosen.device == "cpu"
    with pytest.raises(AssertionError, match=f"cpu: .*{reason}"):
        raise AssertionError(str(chosen))


def test_auto_falls_back_where_only_cpus_hold_the_formats() -> None:
    def formats_on(device: str) -> HeldFormats:
        if device != "cpu":
            raise ValueError("--device cuda: the folder is packed for CPUs")
        return BF16

    chosen = choose_place("auto", formats_on, lambda *_: "", read=gpus(H200))
    assert (chosen.device, chosen.why) == ("cpu", "--device cuda: the folder is packed for CPUs")
    with pytest.raises(ValueError, match="packed for CPUs"):
        choose_place("cuda", formats_on, lambda *_: "", read=gpus(H200))


@pytest.mark.parametrize(
    ("device", "read", "too_small", "message"),
    [
        ("cuda:1", gpus(H200), (), r"--device cuda:1: there are cuda:0 \(NVIDIA H200, 140.0 GiB"),
        ("cuda", gpus(), (), "--device cuda: torch finds no GPU: Found no NVIDIA driver"),
        ("cuda:0", gpus(T4), (), r"--device cuda:0: .*need compute capability 8.0, .* has 7.5"),
        ("cuda:0", gpus(H200), ("cuda:0",), "--device cuda:0: cuda:0 is too small"),
    ],
)
def test_a_named_gpu_that_cannot_serve_is_refused(
    device: str, read: Callable[[], Gpus], too_small: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        place(device, read, too_small=too_small)


def test_a_named_gpu_computes_float32_with_torch_and_says_so() -> None:
    chosen = place("cuda", gpus(H200), formats=F32)
    assert (chosen.device, chosen.why) == ("cuda:0", "the CUDA kernels take bfloat16 rows")


def test_where_the_cpu_is_asked_for_gpus_are_not() -> None:
    def never() -> Gpus:
        raise AssertionError("asked")

    assert str(place("cpu", never)) == "cpu"


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:-1", "cuda:01", "cuda:0,cuda:1"])
def test_other_devices_are_refused_by_name(device: str) -> None:
    with pytest.raises(ValueError, match=r"^--device .*: allowed are auto, cpu, cuda and cuda:N"):
        check_flags(device, 0.9)


@pytest.mark.parametrize("share", [0, -1, 1.01, float("nan")])
def test_a_share_of_memory_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match=r"^--gpu-memory"):
        check_flags("auto", share)
