"""`expertmesh doctor` about GPUs, from facts that a machine with some would have."""

from dataclasses import replace

import pytest

from expertmesh.check import Check, Verdict
from expertmesh.gpu_checks import GpuFacts, check_gpus, checks_of, read_smi
from moe_model.gpus import Gpus
from tests.support.moe_model.fake_gpus import H200, RTX_4090, T4, Card, gpus

GIB = 2**30
SMI = "GPU-a1, 580.65.06, 0\nGPU-b2, 580.65.06, 3\nGPU-c3, 580.65.06, [N/A]\n"


def facts(*cards: Card, uuids: tuple[str, ...] = ("a1", "b2", "c3"), **given: object) -> GpuFacts:
    read = gpus(*cards)()
    found = tuple(replace(one, uuid=uuids[one.index]) for one in read.found)
    known = {
        "free": {one.device: 10 * GIB for one in found},
        "torch_cuda": "13.0",
        "driver_cuda": "13.0",
        "triton": "3.6.0",
        "smi": read_smi(SMI),
    }
    return GpuFacts(gpus=replace(read, found=found), **{**known, **given})


def by_name(made: GpuFacts) -> dict[str, Check]:
    return {one.name: one for one in checks_of(made)}


def test_each_gpu_is_told_with_memory_architecture_and_formats() -> None:
    found = by_name(facts(H200, T4, RTX_4090))
    assert found["gpu 0"].found == (
        "NVIDIA H200, 140.0 GiB (10.0 GiB free), no ECC errors, "
        "sm_90: kernels for bf16, fp8, int4, int4_g128"
    )
    assert found["gpu 0"].verdict is Verdict.OK
    assert "need compute capability 8.0" in found["gpu 1"].advice
    assert "sm_89, not measured: kernels for" in found["gpu 2"].found
    assert "ECC" not in found["gpu 2"].found, "nvidia-smi does not know"


def test_damaged_memory_is_told() -> None:
    found = by_name(facts(H200, uuids=("b2",)))["gpu 0"]
    assert "3 uncorrected ECC errors" in found.found
    assert found.verdict is Verdict.WARNING


def test_a_lost_gpu_is_told_beside_the_others() -> None:
    made = facts(H200, H200)
    lost = "cuda:1 does not answer: CUDA error: device is lost"
    cards = (made.gpus.found[0], replace(made.gpus.found[1], lost=lost))
    found = by_name(replace(made, gpus=replace(made.gpus, found=cards)))
    assert found["gpu 0"].verdict is Verdict.OK
    assert (found["gpu 1"].verdict, found["gpu 1"].found) == (Verdict.FAILED, lost)
    assert "dmesg" in found["gpu 1"].advice


@pytest.mark.parametrize(
    ("driver", "verdict"),
    [("13.1", Verdict.OK), ("13.0", Verdict.OK), ("12.8", Verdict.WARNING), (None, Verdict.OK)],
)
def test_a_driver_is_compared_with_torchs_cuda(driver: str | None, verdict: Verdict) -> None:
    found = by_name(facts(H200, driver_cuda=driver))["gpu driver"]
    assert found.verdict is verdict
    assert found.found.endswith("(580.65.06); torch is for 13.0")


def test_triton_and_peer_access_are_told() -> None:
    assert by_name(facts(H200, triton=""))["triton"].verdict is Verdict.WARNING
    assert "peer access" not in by_name(facts(H200))
    assert by_name(facts(H200, H200))["peer access"].found == "between all GPUs"
    apart = facts(H200, H200, unconnected=(("cuda:0", "cuda:1"),))
    assert by_name(apart)["peer access"].found == "none between cuda:0 and cuda:1"


def test_without_nvidia_smi_the_rest_is_told() -> None:
    assert read_smi("") == {}
    assert "ECC" not in by_name(facts(H200, smi={}))["gpu 0"].found


def test_why_there_is_none_is_told_and_a_driver_without_use_is_a_warning() -> None:
    none = Gpus(problem="this torch is not built for CUDA")
    (found,) = checks_of(GpuFacts(gpus=none))
    assert (found.verdict, found.found) == (
        Verdict.OK,
        "none: this torch is not built for CUDA",
    )
    (found,) = checks_of(GpuFacts(gpus=none, has_driver=True))
    assert found.verdict is Verdict.WARNING


def test_this_machine_can_be_asked() -> None:
    assert all(isinstance(one, Check) for one in check_gpus())
