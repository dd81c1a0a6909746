"""Which pools `up` starts, and which layers each holds: by flags, in equal shares, by what fits."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.cluster.cluster_plan import plan_cluster
from expertmesh.cluster.found_gpus import FoundGpus
from expertmesh.cluster.layout import layers_text
from expertmesh.cluster.options import ClusterOptions
from expertmesh.cluster.preflight import check_memory
from expertmesh.cluster.spec import ClusterPlan, ServiceSpec
from expertmesh.console import EXIT_USAGE, CommandError
from expertmesh.forecasting.gpu_plan import GpuPlan, plan_gpus
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from rpc.mesh.pieces import parse_ranges
from tests.support.moe_model.fake_gpus import H200, RTX_4090, Card, gpus
from tests.support.moe_model.m2_config import M2 as M2_CONFIG

M2 = parse_config({"model_type": "minimax_m2", **M2_CONFIG})
GIB = 2**30
A100: Card = ("NVIDIA A100 80GB", 80, (8, 0))


@pytest.fixture(scope="module")
def m2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m2")
    (folder / "config.json").write_text(json.dumps({**TINY, **M2_CONFIG}))
    return folder


@pytest.fixture(scope="module")
def five_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("five")
    (folder / "config.json").write_text(json.dumps({**TINY, "num_hidden_layers": 5}))
    return folder


def up(
    model: Path,
    *cards: Card,
    device: str = "",
    experts: str = "int4",
    free: dict[str, int] | None = None,
    passed: dict[str, dict[str, Any]] | None = None,
    **options: Any,
) -> ClusterPlan:
    given = {"device": device} if device else {}
    read = gpus(*cards)()
    empty = {one.device: one.total_bytes for one in read.found}
    chosen = ClusterOptions(
        model=model,
        passed=passed or {"attention_svc": given, "expert_svc": given},
        **{"expert_dtype": experts, "linear_dtype": "fp8", **options},
    )
    return plan_cluster(chosen, 8, FoundGpus(gpus=read, free=empty | (free or {})))


def planned(*sizes_gib: int, experts: str = "int4") -> GpuPlan:
    """What `expertmesh plan --gpus` recommends."""
    return plan_gpus(
        M2,
        [size * GIB for size in sizes_gib],
        weight_format=experts,
        linear_format="fp8",
        share=0.9,
        positions=32_768,
    )


def flag(service: ServiceSpec, name: str) -> str:
    assert service.flags.count(name) == 1
    return service.flags[service.flags.index(name) + 1]


def pools(made: ClusterPlan) -> dict[str, tuple[str, str]]:
    """Device and layers of each pool, as its command line says them."""
    return {
        one.name: (flag(one, "--device") if "--device" in one.flags else "", flag(one, "--layers"))
        for one in made.services
        if one.module == "expert_svc"
    }


def attention(made: ClusterPlan) -> ServiceSpec:
    (found,) = (one for one in made.services if one.module == "attention_svc")
    return found


@pytest.mark.parametrize("device", ["", "auto", "cuda", "cuda:0,cuda:1"])
def test_two_cards_hold_the_uneven_shares_that_plan_recommends(m2: Path, device: str) -> None:
    made, wanted = up(m2, A100, A100, device=device), planned(80, 80)
    first, second = wanted.layers
    assert 0 < first < second
    assert first + second == M2.num_layers
    assert pools(made) == {
        "pool-0": ("cuda:0", f"0-{first - 1}"),
        "pool-1": ("cuda:1", f"{first}-61"),
    }
    assert flag(attention(made), "--device") == "cuda:0"
    kv_bytes = int(flag(attention(made), "--kv-memory"))
    assert kv_bytes // 253_952 == wanted.positions, "of M2, a position takes 248 KiB"
    assert f"pool-1: layers {first}-61, " in made.memory_lines[2]


def test_what_the_card_does_not_hold_is_a_pool_on_the_cpu(m2: Path) -> None:
    made, wanted = up(m2, A100), planned(80)
    (count,) = wanted.layers
    assert 0 < count < M2.num_layers
    assert pools(made) == {"pool-0": ("cuda:0", f"0-{count - 1}"), "pool-1": ("cpu", f"{count}-61")}
    (pool,) = (one for one in made.services if one.name == "pool-1")
    assert pool.memory_bytes > wanted.left_layers * 1.7 * GIB, "it is the machine's memory"
    with pytest.raises(CommandError, match=r"(?s)only 8.* are free:.*pool-1: layers .*-61, .* GiB"):
        check_memory(made, 8 * GIB)


def test_a_card_for_attention_only_leaves_all_layers_to_the_cpu(m2: Path) -> None:
    made = up(m2, ("NVIDIA RTX A4000", 16, (8, 6)))
    assert pools(made) == {"pool-0": ("cpu", "0-61")}
    assert flag(attention(made), "--device") == "cuda:0"


def test_a_card_that_holds_everything_needs_no_pools(m2: Path) -> None:
    made = up(m2, H200, experts="int4_g128")
    assert [one.name for one in made.services] == ["attention", "gateway"]
    assert flag(attention(made), "--transport") == "in_process"
    assert flag(attention(made), "--expert-dtype") == "int4_g128"
    wanted = planned(140, experts="int4_g128")
    assert int(flag(attention(made), "--kv-memory")) // 253_952 == wanted.positions


@pytest.mark.parametrize(
    "options",
    [
        {"num_pools": 1},
        {"pool_layers": ("0-61",)},
        {"passed": {"expert_svc": {"canary_s": 60.0}}},
        {"passed": {"router_svc": {"lease_ms": 2000}}},
    ],
)
def test_who_asks_for_pools_gets_them(m2: Path, options: dict[str, Any]) -> None:
    assert pools(up(m2, H200, H200, **options))


def test_cards_that_are_partly_in_use_hold_fewer_layers(m2: Path) -> None:
    made = up(m2, A100, A100, free={"cuda:1": 30 * GIB})
    held = {device: len(parse_ranges(text, "")) for device, text in pools(made).values()}
    assert held["cuda:1"] < held["cuda:0"]
    assert sum(held.values()) == M2.num_layers
    assert held["cpu"] > 0


def test_a_kv_cache_of_a_given_size_takes_the_place_of_layers(m2: Path) -> None:
    small, large = up(m2, A100), up(m2, A100, kv_memory="40GiB")
    assert flag(attention(large), "--kv-memory") == str(40 * GIB)
    counts = [len(parse_ranges(pools(made)["pool-0"][1], "")) for made in (small, large)]
    assert counts[1] < counts[0] - 15


def test_a_kv_cache_that_does_not_fit_is_refused_with_the_numbers(m2: Path) -> None:
    message = r"--device: 9.* GiB of cuda:0 are needed \(attention .* there are 72.0 GiB of cuda:0"
    with pytest.raises(CommandError, match=message):
        up(m2, A100, device="cuda:0", kv_memory="90GiB")
    with pytest.raises(CommandError, match="or leave --in-process out: what does not fit goes to"):
        up(m2, A100, device="cuda:0", in_process=True)


def test_experts_may_have_cards_that_attention_has_not(m2: Path) -> None:
    apart = {"attention_svc": {"device": "cuda:2"}, "expert_svc": {"device": "cuda:0,cuda:1"}}
    made = up(m2, A100, A100, RTX_4090, passed=apart)
    (first, _), (second, _) = pools(made).values()
    assert (first, second) == ("cuda:0", "cuda:1")
    assert flag(attention(made), "--device") == "cuda:2"


def test_a_list_of_cards_for_experts_is_not_left_for_the_cpu_unless_it_names_it(m2: Path) -> None:
    count = planned(80, 80).layers[1]
    only = {"attention_svc": {"device": "cuda:0"}, "expert_svc": {"device": "cuda:1"}}
    with pytest.raises(
        CommandError, match=f"--expert-device cuda:1: holds {count} of 62 layers in int4; add cpu"
    ):
        up(m2, A100, A100, passed=only)
    both = {"attention_svc": {"device": "cuda:0"}, "expert_svc": {"device": "cuda:1,cpu"}}
    made = up(m2, A100, A100, passed=both)
    assert pools(made) == {"pool-0": ("cuda:1", f"0-{count - 1}"), "pool-1": ("cpu", f"{count}-61")}


def test_float32_and_formats_without_a_kernel_stay_on_the_cpu_for_auto(m2: Path) -> None:
    wide = {"experts": "auto", "linear_dtype": "auto", "dtype": "f32"}
    for options in ({"experts": "int8"}, wide):
        made = up(m2, H200, **options)
        assert {device for device, _ in pools(made).values()} == {"cpu"}
        assert made.memory_lines[-1].startswith("on CPUs: ")


def test_pool_layers_are_a_pool_each(five_layers: Path) -> None:
    made = up(five_layers, experts="auto", linear_dtype="auto", pool_layers=("0,2-3", "1,4"))
    assert pools(made) == {"pool-0": ("", "0,2-3"), "pool-1": ("", "1,4")}
    assert [line[: len("pool-0: layers 0,2-3")] for line in made.memory_lines[1:3]] == [
        "pool-0: layers 0,2-3",
        "pool-1: layers 1,4, ",
    ]


def test_pool_layers_are_dealt_the_devices_in_turn(m2: Path) -> None:
    made = up(m2, H200, H200, device="cuda:0,cuda:1", pool_layers=("0-9", "10-61"))
    assert pools(made) == {"pool-0": ("cuda:1", "0-9"), "pool-1": ("cuda:0", "10-61")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_layers": ("0-2",)}, "--pool-layers: no pool with layers 3-4"),
        ({"pool_layers": ("0-2", "2-4")}, "--pool-layers: several pools with layers 2"),
        ({"pool_layers": ("0-5",)}, "--pool-layers: 5 is out of range, allowed are 0 to 4"),
        ({"pool_layers": ("0-1", "two")}, "--pool-layers: expected numbers and ranges"),
        ({"pool_layers": ("0-4",), "num_pools": 2}, "given 1 times, with --pools 2"),
        ({"pool_layers": ("0-4",), "replicas": 1}, "with --replicas the router decides"),
        ({"pool_layers": ("0-4",), "in_process": True}, "with --in-process there are no pools"),
    ],
)
def test_pool_layers_that_make_no_sense_are_refused(
    five_layers: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        up(five_layers, experts="auto", linear_dtype="auto", **options)
    assert caught.value.exit_code == EXIT_USAGE


@given(st.sets(st.integers(0, 99), min_size=1))
def test_layers_read_back_as_they_were_written(layers: set[int]) -> None:
    assert parse_ranges(layers_text(sorted(layers)), "") == tuple(sorted(layers))
