"""What `up` decides before it starts anything."""

import json
import socket
from pathlib import Path

import pytest

from expertmesh.cluster import sizing as sizing_module
from expertmesh.cluster.cluster_plan import plan_cluster
from expertmesh.cluster.layout import stripe
from expertmesh.cluster.options import ClusterOptions
from expertmesh.cluster.preflight import check_memory, check_port
from expertmesh.cluster.service_flags import passable
from expertmesh.console import EXIT_USAGE, CommandError
from moe_model.families.known import load_config
from moe_model.formats import attention_bytes, piece_bytes
from rpc.process.sizes import format_bytes

CONFIG = {
    "model_type": "minimax_m2",
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rotary_dim": 8,
    "rope_theta": 10000.0,
    "intermediate_size": 32,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 128,
    "eos_token_id": 2,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def flag(flags: tuple[str, ...], name: str) -> str:
    return flags[flags.index(name) + 1]


def test_pools_are_layer_striped_and_cover_every_layer_once(model: Path) -> None:
    plan = plan_cluster(ClusterOptions(model=model, num_pools=2), cores=4)
    layers = [flag(one.flags, "--layers") for one in plan.services if one.module == "expert_svc"]
    assert layers == ["0,2,4", "1,3"]
    assert sorted(layer for pool in range(3) for layer in stripe(7, 3, pool)) == list(range(7))


def test_the_order_is_router_then_pools_and_attention_then_gateway(model: Path) -> None:
    plan = plan_cluster(ClusterOptions(model=model), cores=4)
    assert [[one.name for one in stage] for stage in plan.stages] == [
        ["router"],
        ["pool-0", "pool-1", "attention"],
        ["gateway"],
    ]
    assert all(one.dials == (("--router", "router"),) for one in plan.services[1:])


def test_in_process_has_no_pools_and_no_router(model: Path) -> None:
    plan = plan_cluster(ClusterOptions(model=model, in_process=True), cores=4)
    assert [one.name for one in plan.services] == ["attention", "gateway"]
    assert flag(plan.services[0].flags, "--transport") == "in_process"
    assert plan.services[1].dials == (("--attention", "attention"),)


@pytest.mark.parametrize("in_process", [False, True])
def test_attention_services_are_named_and_all_found(model: Path, in_process: bool) -> None:
    options = ClusterOptions(model=model, num_attention=2, in_process=in_process)
    plan = plan_cluster(options, cores=8)
    attention = [one for one in plan.services if one.module == "attention_svc"]
    names = ["attention-0", "attention-1"]
    assert [one.name for one in attention] == names
    assert [flag(one.flags, "--attention-id") for one in attention] == names
    assert {one.threads for one in attention} == {4}
    found = plan.services[-1].dials
    assert found == (
        tuple(("--attention", name) for name in names) if in_process else (("--router", "router"),)
    )


def test_only_the_gateway_has_a_fixed_port(model: Path) -> None:
    plan = plan_cluster(ClusterOptions(model=model, http_port=9123), cores=4)
    listens = {one.name: flag(one.flags, "--listen") for one in plan.services}
    assert listens.pop("gateway") == "127.0.0.1:9123"
    assert set(listens.values()) == {"127.0.0.1:0"}


def test_the_gateway_gets_its_limit_per_client(model: Path) -> None:
    options = ClusterOptions(model=model, passed={"gateway": {"max_concurrent": 300}})
    assert "--max-concurrent=300" in plan_cluster(options, cores=4).services[-1].flags


@pytest.mark.parametrize(
    ("cores", "attention", "expected"), [(1, 1, 1), (2, 1, 2), (8, 1, 8), (8, 3, 2), (2, 3, 1)]
)
def test_services_that_take_turns_share_the_cores_and_attention_services_divide_them(
    model: Path, cores: int, attention: int, expected: int
) -> None:
    options = ClusterOptions(model=model, num_attention=attention)
    plan = plan_cluster(options, cores=cores)
    threads = {
        one.threads for one in plan.services if one.module in ("expert_svc", "attention_svc")
    }
    assert threads == {expected}


def test_weight_formats_reach_the_services_and_count_in_memory(model: Path) -> None:
    options = ClusterOptions(model=model, dtype="bf16", expert_dtype="int4", linear_dtype="int8")
    plan = {one.name: one for one in plan_cluster(options, cores=2).services}
    assert flag(plan["pool-0"].flags, "--expert-dtype") == "int4"
    assert flag(plan["attention"].flags, "--linear-dtype") == "int8"
    assert "--expert-dtype" not in plan["attention"].flags
    plain = plan_cluster(ClusterOptions(model=model, dtype="bf16"), cores=2)
    before = {one.name: one.memory_bytes for one in plain.services}
    assert plan["pool-0"].memory_bytes < before["pool-0"]
    assert plan["attention"].memory_bytes != before["attention"]
    alone = ClusterOptions(model=model, dtype="bf16", expert_dtype="int4", in_process=True)
    (attention, _) = plan_cluster(alone, cores=2).services
    assert flag(attention.flags, "--expert-dtype") == "int4"


@pytest.mark.parametrize("given", [{"expert_dtype": "int4"}, {"linear_dtype": "int8"}])
def test_a_format_that_computes_in_bfloat16_decides_what_auto_means(
    model: Path, given: dict
) -> None:
    assert load_config(model).auto_dtype == "f32"
    plan = plan_cluster(ClusterOptions(model=model, **given), cores=2)
    computing = [one for one in plan.services if one.module in ("expert_svc", "attention_svc")]
    assert {flag(one.flags, "--dtype") for one in computing} == {"bf16"}
    asked_for_nothing = plan_cluster(ClusterOptions(model=model), cores=2)
    assert flag(asked_for_nothing.services[1].flags, "--dtype") == "auto"


def test_a_format_that_needs_another_compute_dtype_says_so(model: Path) -> None:
    with pytest.raises(CommandError, match="--expert-dtype int8 computes in bf16"):
        plan_cluster(ClusterOptions(model=model, dtype="f32", expert_dtype="int8"), cores=2)
    with pytest.raises(CommandError, match="--linear-dtype must be one of auto, f32"):
        plan_cluster(ClusterOptions(model=model, linear_dtype="int2"), cores=2)


def test_threads_reach_flag_and_environment(model: Path) -> None:
    plan = plan_cluster(ClusterOptions(model=model, threads=3), cores=2)
    for service in plan.services:
        if service.module in ("expert_svc", "attention_svc"):
            assert (flag(service.flags, "--threads"), service.threads) == ("3", 3)
        else:
            assert service.threads == 1


def test_memory_counts_weights_in_the_compute_dtype_and_the_kv_budget(model: Path) -> None:
    def needed(**options: object) -> dict[str, int]:
        plan = plan_cluster(ClusterOptions(model=model, **options), cores=2)
        return {one.name: one.memory_bytes for one in plan.services}

    assert needed(dtype="auto") == needed(dtype=load_config(model).auto_dtype)
    piece_params = 3 * 64 * 32
    low, high = needed(dtype="bf16"), needed(dtype="f32")
    three_layers = 3 * 8 * piece_params
    assert high["pool-0"] - low["pool-0"] == pytest.approx(1.05 * 2 * three_layers, abs=2)
    more_kv = needed(dtype="bf16", kv_memory="1GiB")
    assert more_kv["attention"] - low["attention"] == pytest.approx(1.05 * 2**29, abs=2)
    evicted = needed(dtype="bf16", passed={"attention_svc": {"kv_host_memory": "1GiB"}})
    assert evicted["attention"] - low["attention"] == pytest.approx(1.05 * 2**30, abs=2)


def test_a_share_of_memory_is_of_what_all_services_leave(model: Path, monkeypatch) -> None:
    monkeypatch.setattr(sizing_module, "available_memory_bytes", lambda: 2**30)
    config = load_config(model)
    attention_side = attention_bytes(config, "bf16", "bf16")
    weights = attention_side + config.num_pieces * piece_bytes(config, "bf16")
    for in_process in (False, True):
        both = plan_cluster(
            ClusterOptions(
                model=model,
                dtype="bf16",
                kv_memory="25%",
                in_process=in_process,
                num_attention=2,
            ),
            cores=2,
        )
        kv_bytes = [
            int(flag(one.flags, "--kv-memory")) for one in both.services if "attention" in one.name
        ]
        held = attention_side + weights if not in_process else 2 * weights
        assert sum(kv_bytes) == pytest.approx((2**30 - 1.05 * held) / 4, abs=8)
        plan = plan_cluster(
            ClusterOptions(model=model, dtype="bf16", kv_memory="25%", in_process=in_process),
            cores=2,
        )
        (attention,) = (one for one in plan.services if one.name == "attention")
        size_bytes = int(attention.flags[attention.flags.index("--kv-memory") + 1])
        assert size_bytes == pytest.approx((2**30 - 1.05 * weights) / 4, abs=4)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_pools": 0}, "--pools"),
        ({"num_pools": 6}, "--pools: 1 to 5"),
        ({"num_attention": 0}, "--attention: 1 to 64"),
        ({"http_port": 70000}, "--http-port"),
        ({"threads": 0}, "--threads"),
        ({"passed": {"gateway": {"max_concurrent": 0}}}, "--max-concurrent"),
        ({"passed": {"gateway": {"api_key": ["short"]}}}, "--api-key: at least 8"),
        ({"passed": {"gateway": {"api_key": ["a,comma-in-it"]}}}, "--api-key: .* comma"),
        ({"passed": {"attention_svc": {"max_running": 0}}}, "--max-running"),
        ({"passed": {"router_svc": {"lease_ms": 1}}}, "--lease-ms: allowed are 200 to"),
        ({"passed": {"expert_svc": {"memory": "lots"}}}, "--memory"),
        ({"passed": {"expert_svc": {"load": "random"}}}, "--load takes random:SEED"),
        ({"kv_memory": "lots"}, "--kv-memory"),
        ({"dtype": "float8"}, "--dtype"),
    ],
)
def test_impossible_options_are_usage_errors_naming_the_flag(
    model: Path, options: dict, named: str
) -> None:
    with pytest.raises(CommandError, match=named) as caught:
        plan_cluster(ClusterOptions(model=model, **options), cores=2)
    assert caught.value.exit_code == EXIT_USAGE


def test_a_config_that_cannot_be_served_is_refused_with_its_reason(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({**CONFIG, "num_experts_per_tok": 9}))
    with pytest.raises(CommandError, match="num_experts_per_tok"):
        plan_cluster(ClusterOptions(model=model), cores=2)
    with pytest.raises(CommandError, match="not a checkpoint folder"):
        plan_cluster(ClusterOptions(model=model / "nowhere"), cores=2)


def test_a_plan_that_does_not_fit_is_refused_with_the_arithmetic(model: Path) -> None:
    plan = plan_cluster(ClusterOptions(model=model), cores=2)
    check_memory(plan, plan.memory_bytes)
    with pytest.raises(CommandError, match=r"(?s)the cluster needs .* only .*pool-0: .*KV cache"):
        check_memory(plan, plan.memory_bytes - 1)


def test_a_taken_port_is_refused_by_name_and_a_free_one_is_not() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(CommandError, match=f"--http-port {port}"):
            check_port(port)
    check_port(port)
    check_port(0)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (2**29, "512 MiB"),
        (1_500_000_000, "1.4 GiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_sizes_are_shown_in_binary_units(count: int, shown: str) -> None:
    assert format_bytes(count) == shown


def test_with_replicas_the_router_places_and_pools_ask_for_nothing(model: Path) -> None:
    plan = plan_cluster(ClusterOptions(model=model, num_pools=3, replicas=2), cores=4)
    router, *pools = plan.services[:4]
    assert flag(router.flags, "--replicas") == "2"
    assert not any("--layers" in one.flags for one in pools)
    once = plan_cluster(ClusterOptions(model=model, num_pools=3), cores=4)
    assert pools[0].memory_bytes > once.services[1].memory_bytes
    with pytest.raises(CommandError, match="--replicas: 0 to 3"):
        plan_cluster(ClusterOptions(model=model, num_pools=3, replicas=4), cores=4)


@pytest.mark.parametrize("in_process", [False, True])
def test_every_service_is_told_where_the_secret_of_the_run_is(
    model: Path, tmp_path: Path, in_process: bool
) -> None:
    options = ClusterOptions(model=model, in_process=in_process, secret_file=tmp_path / "secret")
    services = plan_cluster(options, cores=4).services
    assert [flag(one.flags, "--secret-file") for one in services] == (
        [str(tmp_path / "secret")] * len(services)
    )


def test_the_gateway_keeps_answers_where_up_says_unless_its_own_flag_says_another_place(
    model: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "responses.sqlite"
    (gateway,) = plan_cluster(ClusterOptions(model=model, response_store=kept), 4).stages[-1]
    assert flag(gateway.flags, "--response-store") == str(kept)
    passed = {"gateway": {"response_store": "none"}}
    options = ClusterOptions(model=model, response_store=kept, passed=passed)
    (gateway,) = plan_cluster(options, cores=4).stages[-1]
    assert gateway.flags[-1] == "--response-store=none"  # the last one wins


def test_weights_from_a_seed_are_asked_of_attention_and_pools_alike(model: Path) -> None:
    (load,) = [one for one in passable(()) if one.name == "load"]
    assert load.is_shared
    passed = {module: {"load": "random:7"} for module in load.modules}
    plan = plan_cluster(ClusterOptions(model=model, passed=passed), cores=4)
    told = [one.name for one in plan.services if "--load=random:7" in one.flags]
    assert told == ["pool-0", "pool-1", "attention"]
