"""The only holder of some experts gives no usable answer: every wait ends, with one log line."""

import signal
import threading
import time
from pathlib import Path

import pytest

from moe_model.kernels.cpu import library
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import ensure_manifest
from moe_model.weights.pack_checkpoint import PackJob, write_packed
from tests.support.attention_svc.long_requests import status_of, until_readyz
from tests.support.chaos.failing_pool import FAIL
from tests.support.chaos.gateway_rig import GatewayRig
from tests.support.chaos.history import Ask, History, check_prefix, describe_end
from tests.support.chaos.http_streams import follow_http
from tests.support.chaos.rig import ALL, LAYERS, LOWER, UPPER, Rig
from tests.support.chaos.streams import Request, until
from tests.support.mesh import Mesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CLIENTS = 4


@pytest.mark.parametrize("how", ["garbage", "error"])
def test_a_sole_holder_without_a_sound_answer_ends_every_request_once_and_for_all(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After --expert-timeout-s, retryable, with one line in the log; it serves again by itself."""
    monkeypatch.setenv(FAIL, how)
    rig = Rig(
        tmp_path,
        ((*ALL, "--canary-s", "0"),),
        "--expert-timeout-s",
        "4",
        "--max-running",
        "2",
        pool_module="tests.support.chaos.failing_pool",
    )
    with rig:
        attention, (pool,) = rig.mesh.attention, rig.pools
        asks = [Ask(prompt=(20 + number, 9), max_tokens=3000) for number in range(CLIENTS)]
        requests = [Request(attention.address, ask).has(5) for ask in asks[:2]]
        requests += [Request(attention.address, ask) for ask in asks[2:]]  # wait for their turn
        until(lambda: rig.metric("expertmesh_sequences_waiting") == CLIENTS - 2)
        pool.process.send_signal(signal.SIGUSR1)
        histories = [request.wait() for request in requests]
        for history in histories:
            assert [end.retryable for end in history.terminals] == [True], describe_end(history)
            cut_off = check_prefix(history, rig.oracle.tokens(history.ask))
            assert cut_off.right, cut_off.problems
        assert "no sound answer" in until_readyz(attention.ops_address, 503)
        late = Request(attention.address, asks[0]).wait()
        assert late.status.startswith("UNAVAILABLE: no sound answer")
        assert len([line for line in attention.lines if "step failed" in line]) == 1
        assert rig.metric("expertmesh_expert_calls_parked") == 0
        pool.process.send_signal(signal.SIGUSR1)
        until_readyz(attention.ops_address, 200)
        verdict = rig.oracle.check([Request(attention.address, rig.asks[0]).wait()])
        assert verdict.right, verdict.problems
        until(lambda: rig.metric("expertmesh_sequences_running") == 0)


def test_two_attention_services_wait_for_missing_experts_hardly_longer_than_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second one is idle until the stream is moved there, so it knows of no outage yet."""
    monkeypatch.setenv(FAIL, "garbage")
    limit_s = 10.0
    rig = GatewayRig(
        tmp_path,
        ((*ALL, "--canary-s", "0"),),
        "--expert-timeout-s",
        f"{limit_s:g}",
        pool_module="tests.support.chaos.failing_pool",
    )
    with rig:
        (pool,) = rig.pools
        history = History(Ask(prompt=(20, 9), max_tokens=3000))
        client = threading.Thread(target=follow_http, args=(rig.url, history), daemon=True)
        client.start()
        until(lambda: len(history.tokens) > 5)
        pool.process.send_signal(signal.SIGUSR1)
        until(lambda: "no sound answer" in reasons(rig), limit_s)
        began_s = time.monotonic()
        client.join(3 * limit_s)
        waited_s = time.monotonic() - began_s
        assert "not_ready" in history.status
        assert check_prefix(history, rig.oracle.tokens(history.ask)).right
        for service in (rig.mesh.attention, rig.second):
            assert len([line for line in service.lines if "step failed" in line]) == 1
        assert rig.gateway_metric("expertmesh_gateway_migrations_total") == 1
        assert waited_s < 1.6 * limit_s, "twice the limit, less a second, if each had its own"
        pool.process.send_signal(signal.SIGUSR1)
        rig.gateway_sees(2)
        again = History(rig.asks[0])
        follow_http(rig.url, again)
        verdict = rig.oracle.check([again])
        assert verdict.right, verdict.problems


def reasons(rig: GatewayRig) -> str:
    """Why attention services are not ready."""
    services = (rig.mesh.attention, rig.second)
    return "; ".join(status_of(service.address).not_ready_reason for service in services)


@pytest.mark.skipif(library.load() is None, reason="packed weights are for the native kernels")
def test_weights_overwritten_under_a_pool_end_it_and_nobody_hangs(tmp_path: Path):
    """Its mapped file is changed in place: at the first answer with NaN it checks its experts."""
    write_tiny(tmp_path / "source", seed=41, num_hidden_layers=LAYERS, max_position_embeddings=4096)
    source = Checkpoint.open(tmp_path / "source")
    job = PackJob(
        source=source, manifest=ensure_manifest(source), format="int8", linear_format="bf16"
    )
    model = tmp_path / "model"
    write_packed(job, model)
    bf16 = ("--dtype", "bf16")
    flags = (*bf16, "--kv-memory", "64MiB", "--expert-timeout-s", "4")
    pools = [(*half, *bf16, "--pool-id", name) for name, half in (("low", LOWER), ("high", UPPER))]
    with Mesh(model, pools, attention_flags=flags, state=tmp_path / "epoch") as mesh:
        asks = [Ask(prompt=(20 + number, 9), max_tokens=3000) for number in range(CLIENTS)]
        requests = [Request(mesh.attention.address, ask).has(5) for ask in asks]
        (shard,) = model.glob("packed-layer-0002*")
        size_bytes = shard.stat().st_size
        with shard.open("r+b") as file:
            file.seek(size_bytes // 4)
            file.write(b"\xff" * (size_bytes // 2))
        for history in [request.wait() for request in requests]:
            assert [end.retryable for end in history.terminals] == [True], describe_end(history)
        assert mesh.pools[1].process.wait(30) == 1
        mesh.pools[1].wait_for("CRITICAL .*layer 2 expert [0-9]+ ")
        assert mesh.pools[0].process.poll() is None
        assert "no pool serves" in until_readyz(mesh.attention.ops_address, 503)
        assert len([line for line in mesh.attention.lines if "step failed" in line]) == 1
