"""Joining through a real server: assignments, fencing, agreement, leases."""

import asyncio
import contextlib
import time

import grpc
import pytest

from protos import router_pb2
from rpc.access.secret import MeshSecret, write_secret
from rpc.mesh.pieces import Pieces
from tests.support.router_svc.harness import (
    ATTENTION,
    EVERYTHING,
    READY,
    Joined,
    answering,
    listening,
    offer,
    pieces_of,
    register,
    running_router,
    status,
    stub_of,
    topology_where,
    until,
)

FIRST_LAYER = Pieces.grid([0], range(8))


async def test_a_pool_joins_gets_what_it_asked_for_and_appears_when_ready():
    async with running_router() as router, stub_of(router) as stub, listening() as address:
        pool = Joined(stub)
        await pool.say(register(address=address, offer=offer(requested=FIRST_LAYER)))
        welcome = await pool.hear("welcome")
        assert (welcome.lease_ms, welcome.seen_address) == (5000, address)
        assignment = await pool.hear("assignment")
        assert pieces_of(assignment.hold) == FIRST_LAYER

        loading = router_pb2.MEMBER_STATE_LOADING
        await pool.say(status(Pieces.grid([0], [0]), state=loading))
        topology = await topology_where(stub, lambda t: len(t.pools) == 1)
        assert not topology.pools[0].pieces.layers
        assert topology.uncovered_pieces == len(EVERYTHING)

        await pool.say(status(FIRST_LAYER, acked_assignment=assignment.version))
        topology = await topology_where(stub, lambda t: t.pools[0].state == READY)
        entry = topology.pools[0]
        assert (entry.pool_id, entry.address) == ("pool-a", address)
        assert pieces_of(entry.pieces) == FIRST_LAYER
        assert topology.checkpoint_id == "sha256:one"
        assert topology.uncovered_pieces == 16
        assert [(c.layer_idx, c.count) for c in topology.first_uncovered] == [(1, 8), (2, 8)]


async def test_pools_that_ask_for_nothing_share_the_model_by_memory():
    async with running_router() as router, stub_of(router) as stub:
        holds = []
        streams = [Joined(stub) for _ in range(2)]
        for i, pool in enumerate(streams):
            await pool.say(register(f"pool-{i}", offer=offer(capacity=12)))
            await pool.hear("welcome")
            await pool.say(status(state=router_pb2.MEMBER_STATE_LOADING))
            holds.append(pieces_of((await pool.hear("assignment")).hold))
        assert holds[0] == EVERYTHING.first(12)
        assert holds[0] | holds[1] == EVERYTHING


async def test_a_pool_that_comes_back_keeps_what_it_holds():
    async with running_router() as router, stub_of(router) as stub:
        held = Pieces.grid([2], range(8))
        pool = Joined(stub)
        await pool.say(register(offer=offer(capacity=8)))
        await pool.hear("welcome")
        await pool.say(status(held))
        assert pieces_of((await pool.hear("assignment")).hold) == held


async def test_another_checkpoint_is_refused_with_both_ids():
    async with running_router() as router, stub_of(router) as stub:
        first = Joined(stub)
        await first.say(register("attn", role=ATTENTION))
        await first.hear("welcome")
        second = Joined(stub)
        await second.say(register(checkpoint_id="sha256:two", offer=offer()))
        code, details = await second.outcome()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "sha256:one" in details
        assert "sha256:two" in details


async def test_the_checkpoint_given_by_flag_binds_the_first_member_too():
    async with running_router(checkpoint_id="sha256:flag") as router, stub_of(router) as stub:
        pool = Joined(stub)
        await pool.say(register(offer=offer()))
        code, details = await pool.outcome()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "sha256:flag" in details


async def test_an_empty_mesh_may_be_founded_anew():
    async with running_router() as router, stub_of(router) as stub:
        first = Joined(stub)
        await first.say(register(offer=offer()))
        await first.hear("welcome")
        await first.say(router_pb2.JoinRequest(leave=router_pb2.Leave()))
        assert (await first.outcome())[0] is grpc.StatusCode.OK
        await topology_where(stub, lambda t: not t.pools)
        second = Joined(stub)
        await second.say(register(checkpoint_id="sha256:two", offer=offer()))
        await second.hear("welcome")
        await topology_where(stub, lambda t: t.checkpoint_id == "sha256:two")


async def serving_pool(stub, address: str, **fields) -> Joined:
    pool = Joined(stub)
    await pool.say(register(address=address, offer=offer(), **fields))
    await pool.hear("welcome")
    await pool.say(status(EVERYTHING))
    return pool


@pytest.fixture
def secret(tmp_path) -> MeshSecret:
    write_secret(tmp_path / "secret")
    return MeshSecret(tmp_path / "secret")


@contextlib.asynccontextmanager
async def guarded_router(secret: MeshSecret, tmp_path, **flags):
    """A router with a secret, and a stub that knows it."""
    async with (
        running_router(secret_file=tmp_path / "secret", **flags) as router,
        stub_of(router, secret) as stub,
        listening() as address,
    ):
        yield router, stub, address


async def test_a_newer_incarnation_that_holds_as_much_fences_the_older_which_cannot_return(
    secret, tmp_path
):
    async with (
        guarded_router(secret, tmp_path) as (_, stub, address),
        answering(incarnation=8) as there,
    ):
        older = await serving_pool(stub, address, incarnation=7)
        await topology_where(stub, lambda t: t.uncovered_pieces == 0)
        newer, stale = Joined(stub), Joined(stub)
        await newer.say(register(address=there, incarnation=8, offer=offer()))
        await newer.hear("welcome")
        assert pieces_of((await newer.hear("assignment")).hold) == EVERYTHING
        await newer.say(status(EVERYTHING))
        code, details = await older.outcome()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "newer incarnation 8" in details
        await stale.say(register(address=address, incarnation=7, offer=offer()))
        code, details = await stale.outcome()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "newer incarnation 8" in details
        topology = await topology_where(stub, lambda t: len(t.pools) == 1)
        assert topology.pools[0].incarnation == 8
        assert topology.uncovered_pieces == 0


@pytest.mark.parametrize(
    "claim",
    [
        status(),
        status(EVERYTHING, state=router_pb2.MEMBER_STATE_LOADING),
        status(FIRST_LAYER),
        status(EVERYTHING),
    ],
    ids=["nothing", "loading", "less", "unreachable"],
)
async def test_one_that_proves_nothing_never_disturbs_the_older(secret, tmp_path, claim):
    async with guarded_router(secret, tmp_path) as (router, stub, address):
        older = await serving_pool(stub, address, incarnation=7)
        before = await topology_where(stub, lambda t: t.uncovered_pieces == 0)
        forged = Joined(stub)
        elsewhere = address if claim != status(EVERYTHING) else "127.0.0.1:9"
        await forged.say(register(address=elsewhere, incarnation=8, offer=offer()))
        await forged.hear("welcome")
        for _ in range(5):
            await forged.say(claim)
            await older.say(status(EVERYTHING))
            await asyncio.sleep(0.05)
        assert (await topology_where(stub, lambda t: True)) == before
        assert [member.incarnation for member in router.mesh.members] == [7]
        await older.say(router_pb2.JoinRequest(leave=router_pb2.Leave()))
        assert (await older.outcome())[0] is grpc.StatusCode.OK
        code, details = await forged.outcome()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "join again" in details


@pytest.mark.parametrize(
    "incarnation",
    [1, 7, 8, int(time.time() * 1000), 2**64 - 1],
    ids=["1", "7", "8", "now", "2^64-1"],  # the same whichever process collects the tests
)
async def test_without_a_secret_a_forged_join_of_a_live_id_is_refused_and_locks_nothing(
    incarnation,
):
    async with running_router() as router, stub_of(router) as stub, listening() as address:
        older = await serving_pool(stub, address, incarnation=7)
        before = await topology_where(stub, lambda t: t.uncovered_pieces == 0)
        forged = Joined(stub)
        await forged.say(
            register(address=address, incarnation=incarnation, process_key=b"?", offer=offer())
        )
        code, details = await forged.outcome()
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION)
        assert "live member" in details or "fenced" in details or "ahead" in details
        assert (await topology_where(stub, lambda t: True)) == before
        again = await serving_pool(stub, address, incarnation=7)
        assert (await older.outcome())[0] is grpc.StatusCode.UNAVAILABLE
        await again.say(router_pb2.JoinRequest(leave=router_pb2.Leave()))
        assert (await again.outcome())[0] is grpc.StatusCode.OK
        await serving_pool(stub, address, incarnation=9)


LIES = {
    "the older one's own port": {"incarnation": 7},
    "another member's port": {"member_id": "pool-b"},
    "less than it announces": {"pieces": EVERYTHING - FIRST_LAYER},
    "another checkpoint": {"checkpoint_id": "sha256:two"},
}


@pytest.mark.parametrize("name", [*LIES, "no gRPC at all"])
async def test_claims_that_the_process_at_its_address_does_not_bear_out_change_nothing(
    secret, tmp_path, name, caplog, monkeypatch
):
    monkeypatch.setattr("router_svc.joining.DIAL_RETRY_S", 0.05)
    monkeypatch.setattr("router_svc.members.proving.ASK_TIMEOUT_S", 0.5)
    there = answering(**{"incarnation": 8, **LIES[name]}) if name in LIES else listening()
    async with guarded_router(secret, tmp_path) as (router, stub, address), there as claimed:
        older = await serving_pool(stub, address, incarnation=7)
        before = await topology_where(stub, lambda t: t.uncovered_pieces == 0)
        forged = Joined(stub)
        await forged.say(register(address=claimed, incarnation=8, offer=offer()))
        await forged.hear("welcome")
        await forged.say(status(EVERYTHING))
        await until(lambda: any("a second pool pool-a: " in line for line in caplog.messages))
        await older.say(status(EVERYTHING))
        await asyncio.sleep(0.2)
        assert (await topology_where(stub, lambda t: True)) == before
        assert [member.incarnation for member in router.mesh.members] == [7]
        assert sum("a second pool pool-a: " in line for line in caplog.messages) == 1


async def test_an_attention_service_follows_when_it_is_ready(secret, tmp_path):
    async with (
        guarded_router(secret, tmp_path) as (router, stub, address),
        answering("attn", incarnation=8) as there,
    ):
        older, newer = Joined(stub), Joined(stub)
        await older.say(register("attn", incarnation=7, role=ATTENTION, address=address))
        await older.hear("welcome")
        await newer.say(register("attn", incarnation=8, role=ATTENTION, address=there))
        await newer.hear("welcome")
        await newer.say(status(state=router_pb2.MEMBER_STATE_LOADING))
        await asyncio.sleep(0.2)
        assert [member.incarnation for member in router.mesh.members] == [7]
        await newer.say(status())
        assert (await older.outcome())[0] is grpc.StatusCode.FAILED_PRECONDITION
        assert [member.incarnation for member in router.mesh.members] == [8]


async def test_a_live_members_id_is_free_when_its_lease_has_ended():
    async with running_router(lease_ms=400) as router, stub_of(router) as stub:
        silent, patient = Joined(stub), Joined(stub)
        await silent.say(register(incarnation=7, offer=offer()))
        await silent.hear("welcome")
        await patient.say(register(incarnation=8, offer=offer()))
        assert (await patient.outcome())[0] is grpc.StatusCode.UNAVAILABLE
        assert (await silent.outcome())[0] is grpc.StatusCode.UNAVAILABLE
        again = Joined(stub)
        await again.say(register(incarnation=8, offer=offer()))
        await again.hear("welcome")


async def test_a_second_stream_of_the_same_process_replaces_the_first_without_a_refusal():
    async with running_router() as router, stub_of(router) as stub, listening() as address:
        first, second = Joined(stub), Joined(stub)
        await first.say(register(address=address, offer=offer()))
        await first.hear("welcome")
        await first.say(status(EVERYTHING))
        await topology_where(stub, lambda t: t.uncovered_pieces == 0)
        await second.say(register(address=address, offer=offer()))
        await second.hear("welcome")
        assert (await first.outcome())[0] is grpc.StatusCode.UNAVAILABLE
        topology = await topology_where(stub, lambda t: True)
        assert topology.uncovered_pieces == 0  # never shown as loading in between


async def three_pools(stub, address: str) -> list[Joined]:
    """Each with a layer of its own, and the router knows all of them."""
    pools = [Joined(stub) for _ in range(3)]
    for i, pool in enumerate(pools):
        await pool.say(register(f"pool-{i}", address=address, offer=offer()))
        await pool.hear("welcome")
        await pool.say(status(Pieces.grid([i], range(8))))
    await topology_where(stub, lambda t: t.uncovered_pieces == 0)
    return pools


async def test_a_broken_stream_takes_the_pool_off_the_map_at_once():
    async with running_router(lease_ms=60_000) as router, stub_of(router) as stub:
        async with listening() as address:
            pools = await three_pools(stub, address)
            pools[0].call.cancel()
            topology = await topology_where(stub, lambda t: t.uncovered_pieces == 8)
            assert [entry.pool_id for entry in topology.pools] == ["pool-1", "pool-2"]


async def test_the_topology_is_kept_when_more_than_half_of_the_pools_vanish_at_once():
    async with running_router(lease_ms=60_000) as router, stub_of(router) as stub:
        async with listening() as address:
            pools = await three_pools(stub, address)
            pools[0].call.cancel()
            pools[1].call.cancel()
            await asyncio.sleep(0.1)
            topology = await topology_where(stub, lambda t: t.uncovered_pieces == 0)
            assert [entry.pool_id for entry in topology.pools] == ["pool-0", "pool-1", "pool-2"]
            assert len(router.mesh.members) == 1


async def test_a_silent_member_is_removed_after_its_lease_and_may_join_again():
    async with running_router(lease_ms=300) as router, stub_of(router) as stub:
        pool = Joined(stub)
        await pool.say(register(offer=offer()))
        await pool.hear("welcome")
        code, details = await pool.outcome()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "lease" in details
        again = Joined(stub)
        await again.say(register(offer=offer()))
        await again.hear("welcome")


async def test_an_address_without_a_host_becomes_the_one_the_router_saw():
    async with running_router() as router, stub_of(router) as stub, listening() as address:
        port = address.rpartition(":")[2]
        pool = Joined(stub)
        await pool.say(register(address=f"0.0.0.0:{port}", offer=offer()))
        assert (await pool.hear("welcome")).seen_address == address


async def test_a_member_that_cannot_be_dialled_is_not_ready_and_the_reason_is_shown():
    async with running_router() as router, stub_of(router) as stub:
        async with listening() as address:
            pass  # closed again: refuses connections
        pool = Joined(stub)
        await pool.say(register(address=address, offer=offer()))
        await pool.hear("welcome")
        await pool.say(status(EVERYTHING))
        await asyncio.sleep(0.2)
        answer = await stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=5)
        assert answer.topology.pools[0].state == router_pb2.MEMBER_STATE_LOADING
        assert answer.topology.uncovered_pieces == len(EVERYTHING)
        assert address in answer.members[0].unready_reason
        assert "refused" in answer.members[0].unready_reason


async def test_the_dial_back_is_repeated_until_it_works():
    async with running_router() as router, stub_of(router) as stub:
        async with listening() as address:
            pass
        pool = Joined(stub)
        await pool.say(register(address=address, offer=offer()))
        await pool.hear("welcome")
        await pool.say(status(EVERYTHING))
        await asyncio.sleep(0.1)
        host, _, port = address.rpartition(":")
        server = await asyncio.start_server(lambda r, w: w.close(), host, int(port))
        async with server:
            await topology_where(stub, lambda t: t.uncovered_pieces == 0)
