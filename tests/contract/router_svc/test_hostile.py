"""Frames that no honest member sends: the router answers, and other members are unaffected."""

import asyncio

import grpc
import pytest

from protos import pieces_pb2, router_pb2
from router_svc import service
from rpc.access.secret import MeshSecret, write_secret
from tests.support.router_svc.harness import (
    ATTENTION,
    EVERYTHING,
    EXPERTS,
    LAYERS,
    Joined,
    answering,
    offer,
    register,
    running_router,
    status,
    stub_of,
    until,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
JOIN = router_pb2.JoinRequest


def one_range(layer: int, first: int, count: int) -> pieces_pb2.PieceSet:
    ranges = [pieces_pb2.ExpertRange(first=first, count=count)]
    return pieces_pb2.PieceSet(layers=[pieces_pb2.LayerPieces(layer_idx=layer, ranges=ranges)])


HUGE = one_range(0, 0, 2**32 - 1)

BAD_FIRST_FRAMES = {
    "status first": (status(), "first frame"),
    "leave first": (JOIN(leave=router_pb2.Leave()), "first frame"),
    "empty frame": (JOIN(), "first frame"),
    "no role": (register(role=0), "role"),
    "unknown role": (register(role=77), "role"),
    "no id": (register(""), "member_id"),
    "spaces in the id": (register("a b"), "member_id"),
    "a very long id": (register("x" * 1000), "member_id"),
    "no checkpoint": (register(checkpoint_id=""), "checkpoint_id"),
    "no address": (register(address=""), "address"),
    "a port that cannot be dialled": (register(address="127.0.0.1:0"), "address"),
    "no port": (register(address="127.0.0.1"), "address"),
    "an address of the cloud's own": (register(address="169.254.169.254:80"), "register.address"),
    "an address of somebody else": (register(address="192.0.2.7:80"), "register.address"),
    "metrics of somebody else": (
        register(metrics_address="192.0.2.7:80"),
        "register.metrics_address",
    ),
    "a metrics address that is none": (register(metrics_address="x"), "metrics_address"),
    "layers no model has": (register(num_layers=2**32 - 1), "layers"),
    "experts no model has": (register("a", role=ATTENTION, num_experts=2**32 - 1), "experts"),
    "a huge range": (register(offer=router_pb2.PoolOffer(available=HUGE)), "offer.available"),
    "a layer too far": (
        register(offer=router_pb2.PoolOffer(requested=one_range(LAYERS, 0, 1))),
        "offer.requested",
    ),
}


@pytest.mark.parametrize("name", BAD_FIRST_FRAMES)
async def test_a_bad_first_frame_is_refused_by_name(name):
    frame, field = BAD_FIRST_FRAMES[name]
    async with running_router() as router, stub_of(router) as stub:
        stream = Joined(stub)
        await stream.say(frame)
        code, details = await stream.outcome()
        assert code is INVALID
        assert field in details
        assert len(router.mesh.members) == 0


BAD_LATER_FRAMES = {
    "register twice": (JOIN(register=register()), "register"),
    "empty frame": (JOIN(), "status or leave"),
    "a huge range": (JOIN(status=router_pb2.MemberStatus(ready=HUGE)), "status.ready"),
    "an unknown state": (JOIN(status=router_pb2.MemberStatus(state=99)), "status.state"),
    "a layer too far": (
        status(activations=[router_pb2.LayerActivations(layer_idx=LAYERS)]),
        "activations",
    ),
    "an expert too far": (
        status(
            activations=[
                router_pb2.LayerActivations(layer_idx=0, expert_ids=[EXPERTS], token_counts=[1])
            ]
        ),
        "activations",
    ),
    "counts that do not match": (
        status(
            activations=[router_pb2.LayerActivations(layer_idx=0, expert_ids=[1], token_counts=[])]
        ),
        "activations",
    ),
}


@pytest.mark.parametrize("name", BAD_LATER_FRAMES)
async def test_a_bad_later_frame_ends_that_stream_only(name):
    frame, field = BAD_LATER_FRAMES[name]
    async with running_router() as router, stub_of(router) as stub:
        good, bad = Joined(stub), Joined(stub)
        for stream, member_id in ((good, "good"), (bad, "bad")):
            await stream.say(register(member_id, offer=offer()))
            await stream.hear("welcome")
        await bad.say(frame)
        code, details = await bad.outcome()
        assert code is INVALID
        assert field in details
        await good.say(status(EVERYTHING))
        await good.hear("assignment")
        assert [member.member_id for member in router.mesh.members] == ["good"]


FORGED = "z\n2026-11-28T00:00:00 ERROR router forged line"


@pytest.mark.parametrize("member_id", [FORGED, "x" * 1_000_000, "\N{GRINNING FACE}" * 100_000])
@pytest.mark.parametrize("fields", [{"protocol_major": 9}, {}, {"role": 77}])
async def test_what_a_member_calls_itself_makes_no_line_and_breaks_no_answer(
    member_id, fields, caplog
):
    async with running_router() as router, stub_of(router) as stub:
        stream = Joined(stub)
        await stream.say(register(member_id, offer=offer(), **fields))
        code, details = await stream.outcome()
        assert code in (INVALID, grpc.StatusCode.FAILED_PRECONDITION)
        assert details.isprintable()
        assert len(details) <= 1000
        assert all(len(line) < 2000 and line.isprintable() for line in caplog.messages)


async def test_who_joins_takes_over_and_leaves_is_in_the_audit(caplog, tmp_path):
    caplog.set_level("INFO", logger="audit")
    write_secret(tmp_path / "secret")
    async with (
        running_router(secret_file=tmp_path / "secret") as router,
        stub_of(router, MeshSecret(tmp_path / "secret")) as stub,
        answering(incarnation=8) as address,
    ):
        older, newer = Joined(stub), Joined(stub)
        await older.say(register(address=address, incarnation=7, offer=offer()))
        await older.hear("welcome")
        await newer.say(register(address=address, incarnation=8, offer=offer()))
        await newer.hear("welcome")
        await newer.hear("assignment")
        await newer.say(status(EVERYTHING))
        await older.outcome()
        await stub.DrainPool(router_pb2.DrainPoolRequest(pool_id="pool-a"), timeout=60)
        await newer.say(JOIN(leave=router_pb2.Leave()))
        await newer.outcome()
        await until(lambda: any("left" in line for line in caplog.messages))
    told = [line for name, _, line in caplog.record_tuples if name == "audit"]
    kinds = ["joined", "waits", "fenced", "joined", "drained", "left"]
    assert [next((kind for kind in kinds if kind in line), line) for line in told] == kinds
    assert all("from 127.0.0.1 (no certificate)" in line for line in told)
    assert all("pool-a" in line or "pool pool-a" in line for line in told)


async def test_another_protocol_major_is_refused():
    async with running_router() as router, stub_of(router) as stub:
        stream = Joined(stub)
        await stream.say(register(protocol_major=2, offer=offer()))
        code, details = await stream.outcome()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "protocol major 2" in details


async def test_a_newer_protocol_minor_is_admitted():
    async with running_router() as router, stub_of(router) as stub:
        stream = Joined(stub)
        await stream.say(register(protocol_minor=9, offer=offer()))
        await stream.hear("welcome")


async def test_an_oversize_frame_ends_its_stream_only():
    async with running_router() as router, stub_of(router) as stub:
        stream = Joined(stub)
        await stream.say(register(numerics_id="x" * (service.MAX_FRAME_BYTES + 1)))
        code, _ = await stream.outcome()
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
        other = Joined(stub)
        await other.say(register(offer=offer()))
        await other.hear("welcome")


async def test_a_full_mesh_refuses_and_admits_again_when_there_is_room():
    async with running_router(max_members=1) as router, stub_of(router) as stub:
        first, second, third = Joined(stub), Joined(stub), Joined(stub)
        await first.say(register("one", offer=offer()))
        await first.hear("welcome")
        await second.say(register("two", offer=offer()))
        code, details = await second.outcome()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "full" in details
        await first.say(router_pb2.JoinRequest(leave=router_pb2.Leave()))
        await first.outcome()
        await third.say(register("three", offer=offer()))
        await third.hear("welcome")


async def test_a_stream_without_any_frame_is_ended(monkeypatch):
    monkeypatch.setattr("router_svc.joining.first_frame", _impatient_first_frame)
    async with running_router() as router, stub_of(router) as stub:
        code, details = await Joined(stub).outcome()
        assert code is INVALID
        assert "no frame within" in details


async def _impatient_first_frame(context):
    from router_svc.streams import first_frame

    return await first_frame(context, timeout_s=0.1)


async def test_watchers_are_bounded_and_a_slow_one_does_not_stop_the_others():
    async with running_router(max_members=2) as router, stub_of(router) as stub:
        calls = [stub.WatchTopology(timeout=60) for _ in range(3)]
        for call in calls[:2]:
            await call.write(router_pb2.WatchTopologyRequest(watcher_id="w"))
            assert (await asyncio.wait_for(call.read(), 15)).topology.version.epoch > 0
        await calls[2].write(router_pb2.WatchTopologyRequest(watcher_id="w"))
        with pytest.raises(grpc.aio.AioRpcError, match="at most 2 watchers"):
            await asyncio.wait_for(calls[2].read(), 15)
        for call in calls:
            call.cancel()
