"""Which service of `up` gets which device, how much is left for its KV cache, what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired
from typing import Any

import pytest

from expertmesh.cluster.cluster_plan import plan_cluster
from expertmesh.cluster.found_gpus import FoundGpus, find_gpus
from expertmesh.cluster.options import ClusterOptions
from expertmesh.cluster.spec import ClusterPlan
from expertmesh.console import CommandError
from moe_model.families.minimax_m2.tiny_config import TINY
from tests.support.moe_model.fake_gpus import H100, H200, T4, Card, gpus
from tests.support.moe_model.m2_config import M2 as M2_CONFIG

GIB = 2**30
SMALL: Card = ("NVIDIA T400", 4, (8, 6))
INT4 = {"expert_dtype": "int4_g128", "linear_dtype": "fp8"}


@pytest.fixture(scope="module")
def m2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m2")
    (folder / "config.json").write_text(json.dumps({**TINY, **M2_CONFIG}))
    return folder


def found(*cards: Card) -> FoundGpus:
    read = gpus(*cards)()
    return FoundGpus(gpus=read, free={one.device: one.total_bytes for one in read.found})


def plan(model: Path, *cards: Card, device: str = "", **options: Any) -> ClusterPlan:
    given = {"device": device} if device else {}
    passed = options.pop("passed", {"attention_svc": given, "expert_svc": given})
    chosen = ClusterOptions(model=model, passed=passed, **{**INT4, **options})
    return plan_cluster(chosen, 8, found(*cards))


def flag(made: ClusterPlan, service: str, name: str) -> str:
    (flags,) = (one.flags for one in made.services if one.name == service)
    assert flags.count(name) == 1
    return flags[flags.index(name) + 1]


def devices(made: ClusterPlan) -> dict[str, str]:
    return {
        one.name: flag(made, one.name, "--device")
        for one in made.services
        if one.module in ("attention_svc", "expert_svc")
    }


def test_a_list_is_dealt_to_attention_first_and_then_to_pools_in_turn(m2: Path) -> None:
    made = plan(m2, H200, H200, device="cuda:0,cuda:1", num_pools=3)
    assert devices(made) == {
        "attention": "cuda:0",
        "pool-0": "cuda:1",
        "pool-1": "cuda:0",
        "pool-2": "cuda:1",
    }


@pytest.mark.parametrize("device", ["", "auto", "cuda"])
def test_auto_and_cuda_stand_for_all_gpus_that_the_kernels_take(m2: Path, device: str) -> None:
    made = plan(m2, T4, H200, H200, device=device, num_pools=2)
    assert devices(made) == {"attention": "cuda:1", "pool-0": "cuda:2", "pool-1": "cuda:1"}


def test_each_kind_of_service_may_have_a_list_of_its_own(m2: Path) -> None:
    passed = {"attention_svc": {"device": "cuda:1"}, "expert_svc": {"device": "cpu"}}
    made = plan(m2, H100, H100, passed=passed)
    assert devices(made) == {"attention": "cuda:1", "pool-0": "cpu", "pool-1": "cpu"}
    assert made.memory_bytes > 100 * GIB, "the pools' memory is the machine's"


def test_without_gpus_nothing_is_said_to_services_and_the_plan_says_why(m2: Path) -> None:
    made = plan_cluster(ClusterOptions(model=m2, **INT4), 8, FoundGpus())
    assert all("--device" not in one.flags for one in made.services)
    assert made.memory_lines[-1] == "on CPUs: there is no NVIDIA driver here"
    assert flag(made, "attention", "--kv-memory") == str(512 * 2**20)


def test_auto_is_the_cpu_where_not_all_fits_and_the_plan_says_why(m2: Path) -> None:
    made = plan(m2, H100, num_pools=2)
    assert set(devices(made).values()) == {"cpu"}
    assert "of cuda:0 are needed (attention " in made.memory_lines[-1]
    assert set(devices(plan(m2, SMALL)).values()) == {"cpu"}, "attention does not fit"
    assert set(devices(plan(m2, H200, expert_dtype="int8")).values()) == {"cpu"}


@pytest.mark.parametrize(
    ("cards", "device", "message"),
    [
        ((H100,), "cuda", r"--device: 1.* GiB of cuda:0 are needed .*--gpu-memory 0.9"),
        ((H200,), "cuda:0,cuda:1", r"--device cuda:1: there are cuda:0 \(NVIDIA H200"),
        ((T4,), "cuda:0", "need compute capability 8.0"),
        ((), "cuda", "torch finds no GPU"),
        ((H200,), "cuda:0,auto", "a list names cpu and cuda:N"),
        ((H200,), "abacus", "--device abacus: allowed are"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    m2: Path, cards: tuple[Card, ...], device: str, message: str
) -> None:
    with pytest.raises(CommandError, match=message) as error:
        plan(m2, *cards, device=device, num_pools=2)
    assert "\n" not in str(error.value)


def test_keys_and_values_get_what_the_services_of_a_card_leave(m2: Path) -> None:
    made = plan(m2, H200, num_pools=2)
    kv = int(flag(made, "attention", "--kv-memory"))
    lines = {line.partition(":")[0]: line for line in made.memory_lines}
    assert "on cuda:0 (KV cache " in lines["attention"]
    assert GIB < kv < 20 * GIB
    more = plan(m2, H200, num_pools=2, passed={"attention_svc": {"gpu_memory": 0.95}})
    assert int(flag(more, "attention", "--kv-memory")) == pytest.approx(kv + 7 * GIB, rel=1e-6)
    two = plan(m2, H200, num_attention=2, num_pools=1)
    assert int(flag(two, "attention-0", "--kv-memory")) < kv / 2
    assert flag(plan(m2, H200, num_pools=2, kv_memory="1GiB"), "attention", "--kv-memory") == str(
        GIB
    )


def test_pools_that_share_a_card_do_not_each_offer_all_of_it(m2: Path) -> None:
    made = plan(m2, H200, H200, num_pools=2, replicas=1)
    assert int(flag(made, "pool-0", "--memory")) < 65 * GIB


def test_what_was_found_comes_whole_from_the_process_that_was_asked() -> None:
    asked = found(T4, H200)
    assert FoundGpus.from_json(asked.to_json()) == asked


def test_without_a_driver_torch_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("subprocess.run", never)
    assert find_gpus(is_named=False, drivers=(tmp_path / "none",)) == FoundGpus()


def test_a_lost_gpu_is_passed_over_unless_it_is_named(m2: Path) -> None:
    lost = "cuda:0 does not answer: CUDA error: device is lost"
    both = found(H200, H200)
    cards = (replace(both.gpus.found[0], lost=lost), both.gpus.found[1])
    left = FoundGpus(gpus=replace(both.gpus, found=cards), free={"cuda:1": both.free["cuda:1"]})
    assert FoundGpus.from_json(left.to_json()) == left
    made = plan_cluster(ClusterOptions(model=m2, num_pools=2, **INT4), 8, left)
    assert set(devices(made).values()) == {"cuda:1"}
    named = {"attention_svc": {"device": "cuda:0"}}
    with pytest.raises(CommandError, match=f"--device cuda:0: {lost}"):
        plan_cluster(ClusterOptions(model=m2, num_pools=2, passed=named, **INT4), 8, left)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (CalledProcessError(1, "python", stderr="Traceback\nImportError: no torch"), "no torch"),
        (CalledProcessError(-9, "python", stderr=""), "status -9"),
        (TimeoutExpired("python", 120), "no answer within 120 s"),
    ],
)
def test_why_torch_could_not_be_asked_is_said_in_one_line(
    failure: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr("subprocess.run", fail)
    problem = find_gpus(is_named=True).gpus.problem
    assert problem.startswith("torch could not be asked for GPUs: ")
    assert problem.endswith(reason)
    assert "\n" not in problem
