"""Hello, credit, cancellation, deadlines, floods: the life of an Execute stream."""

import asyncio
import contextlib
import threading
import time
from typing import Any

import grpc
import pytest
import torch

from expert_svc import servicer as servicer_module
from expert_svc.servicer import MAX_INFLIGHT_CALLS
from protos import expert_pb2, expert_pb2_grpc, tensor_pb2
from rpc.channel import open_channel
from rpc.mesh.pieces import Pieces
from tests.support.expert_svc.execute_harness import (
    EXPERTS,
    LAYERS,
    MAX_ROWS,
    NOT_HELD,
    PREFILL,
    SERVICE,
    Caller,
    D,
    caller_hello,
    calling,
    execute_frame,
    expected_sums,
    routed_frame,
    rows_of,
    running_pool,
    tiny,
    with_bystander,
)


class Gate:
    """A computation that waits until it is released."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.started = threading.Event()
        self.order: list[int] = []

    def __call__(self, call: Any) -> torch.Tensor:
        self.started.set()
        assert self.open.wait(30)
        self.order.append(call.call_id)
        return torch.zeros(call.num_rows, D)


async def until(condition: Any, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        await asyncio.sleep(0.005)


async def test_hello_says_who_the_pool_is_and_what_it_takes():
    async with running_pool() as pool, calling(pool.address) as caller:
        hello = caller.pool_hello
        assert hello is not None
        assert (hello.protocol_major, hello.pool_id, hello.incarnation) == (1, "pool-a", 7)
        assert hello.checkpoint_id == tiny()[1].checkpoint_id
        assert list(hello.accepted_dtypes) == [tensor_pb2.DTYPE_FLOAT32]
        assert hello.max_rows == MAX_ROWS
        assert hello.credit.max_inflight_calls >= 1
        assert hello.credit.max_inflight_rows >= MAX_ROWS
        held = Pieces.from_message(hello.pieces, num_layers=LAYERS, num_experts=EXPERTS)
        assert held == Pieces.all_of(LAYERS, EXPERTS) - Pieces([(LAYERS - 1, NOT_HELD)])


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"protocol_major": 2}, "protocol major 2"),
        ({"protocol_major": 0}, "protocol major 0"),
        ({"checkpoint_id": "0" * 64}, "checkpoint_id"),
        ({"checkpoint_id": ""}, "checkpoint_id"),
        ({"checkpoint_id": "x" * 100_000}, "checkpoint_id"),
    ],
)
async def test_another_major_or_checkpoint_is_refused_in_the_greeting(fields, words):
    async with running_pool() as pool, with_bystander(pool, hello=False) as (caller, bystander):
        await caller.send(hello=caller_hello(**fields))
        code, details = await caller.ended()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert words in details
        assert len(details) < 500
        await bystander.still_served()


@pytest.mark.parametrize("minor", [0, 1, 2**32 - 1])
async def test_older_and_newer_minors_interoperate(minor: int):
    async with running_pool() as pool, calling(pool.address, hello=False) as caller:
        await caller.hello(protocol_minor=minor)
        assert torch.equal(rows_of(await caller.result_of(caller.call())), expected_sums())


@pytest.mark.parametrize(
    "first", [{"execute": execute_frame()}, {"ping": expert_pb2.Ping(nonce=1)}, {}]
)
async def test_a_stream_that_does_not_begin_with_hello_is_ended(first):
    async with running_pool() as pool, with_bystander(pool, hello=False) as (caller, bystander):
        await caller.send(**first)
        code, details = await caller.ended()
        assert (code, "hello" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        await bystander.still_served()


async def test_a_caller_that_never_says_hello_is_dropped(monkeypatch):
    monkeypatch.setattr(servicer_module, "HELLO_TIMEOUT_S", 0.1)
    async with running_pool() as pool, with_bystander(pool, hello=False) as (caller, bystander):
        assert (await caller.ended())[0] is grpc.StatusCode.INVALID_ARGUMENT
        await bystander.still_served()


async def test_a_second_hello_ends_that_stream_only():
    async with running_pool() as pool, with_bystander(pool) as (caller, bystander):
        await caller.send(hello=caller_hello())
        assert (await caller.ended())[0] is grpc.StatusCode.INVALID_ARGUMENT
        await bystander.still_served()


async def test_a_ping_is_answered_with_its_nonce_while_the_pool_computes():
    gate = Gate()
    async with running_pool(compute=gate, inline_rows=0) as pool:
        async with calling(pool.address) as caller:
            await caller.send(execute=caller.call())
            await until(gate.started.is_set)
            await caller.send(ping=expert_pb2.Ping(nonce=2**64 - 1))
            assert (await caller.read()).pong.nonce == 2**64 - 1
            gate.open.set()
            assert (await caller.read()).result.call_id == 1


async def test_unread_bytes_of_a_newer_minor_are_ignored():
    """Unknown fields in known frames, and frames of an unknown kind."""
    unknown_field = b"\xa2\x06\x03new"  # field 100, three bytes

    async with (
        running_pool() as pool,
        open_channel(pool.address, tls=None, server_role="expert") as channel,
    ):
        stream = channel.stream_stream(
            f"/{SERVICE}/Execute",
            request_serializer=lambda frame: frame,
            response_deserializer=expert_pb2.ExecuteResponse.FromString,
        )()
        caller = Caller(stream)

        def raw(kind: bytes, message: Any) -> bytes:
            body = message.SerializeToString() + unknown_field
            return kind + varint(len(body)) + body + unknown_field

        await stream.write(raw(b"\x0a", caller_hello()))
        assert (await caller.read()).WhichOneof("frame") == "hello"
        await stream.write(unknown_field)
        await stream.write(raw(b"\x12", execute_frame(call_id=4)))
        assert torch.equal(rows_of((await caller.read()).result), expected_sums())


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


async def test_bytes_that_are_no_protobuf_end_that_stream_only():
    async with (
        running_pool() as pool,
        calling(pool.address) as other,
        open_channel(pool.address, tls=None, server_role="expert") as channel,
    ):
        stream = channel.stream_stream(f"/{SERVICE}/Execute")()
        caller = Caller(stream)
        await stream.write(expert_pb2.ExecuteRequest(hello=caller_hello()).SerializeToString())
        await caller.read()
        await stream.write(b"\xff\xff\xff\xff\xff")
        assert (await caller.ended())[0] is not grpc.StatusCode.OK
        assert (await other.result_of(other.call())).call_id == 1


async def test_an_oversize_message_ends_that_stream_only():
    async with running_pool(max_receive_bytes=100_000) as pool:
        async with with_bystander(pool) as (caller, bystander):
            huge = tensor_pb2.Tensor(dtype=1, shape=[1], data=bytes(200_000))
            with contextlib.suppress(grpc.aio.AioRpcError):
                await caller.send(execute=caller.call(hidden=huge))
            assert (await caller.ended())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
            await bystander.still_served()


async def test_more_calls_than_the_credit_are_refused_and_the_others_answered():
    gate = Gate()
    async with running_pool(compute=gate, inline_rows=0) as pool:
        async with calling(pool.address) as caller:
            for _ in range(MAX_INFLIGHT_CALLS + 1):
                await caller.send(execute=caller.call())
            refused = await caller.read()
            assert refused.error.code == expert_pb2.ERROR_CODE_RESOURCE_EXHAUSTED
            assert refused.error.call_id == MAX_INFLIGHT_CALLS + 1
            gate.open.set()
            answered = {(await caller.read()).result.call_id for _ in range(MAX_INFLIGHT_CALLS)}
            assert answered == set(range(1, MAX_INFLIGHT_CALLS + 1))


async def test_more_rows_than_the_credit_are_refused():
    gate = Gate()
    async with running_pool(compute=gate, inline_rows=0) as pool:
        async with calling(pool.address) as caller:
            assert caller.pool_hello is not None
            fit = caller.pool_hello.credit.max_inflight_rows // MAX_ROWS
            for call_id in range(1, fit + 2):
                await caller.send(execute=routed_frame(call_id, MAX_ROWS)[0])
            refused = await caller.read()
            assert refused.error.code == expert_pb2.ERROR_CODE_RESOURCE_EXHAUSTED
            assert refused.error.call_id == fit + 1
            gate.open.set()
            assert {(await caller.read()).result.call_id for _ in range(fit)} == {
                *range(1, fit + 1)
            }
            # Answered calls give their credit back.
            await caller.send(execute=routed_frame(99, MAX_ROWS)[0])
            assert (await caller.read()).result.call_id == 99


async def test_a_cancelled_call_is_answered_so():
    gate = Gate()
    async with running_pool(compute=gate, inline_rows=0) as pool:
        async with calling(pool.address) as caller:
            await caller.send(execute=caller.call())
            await until(gate.started.is_set)
            await caller.send(execute=caller.call())
            await caller.send(cancel=expert_pb2.Cancel(call_id=2))
            await caller.send(cancel=expert_pb2.Cancel(call_id=77))  # unknown: nothing happens
            await caller.send(ping=expert_pb2.Ping(nonce=1))
            assert (await caller.read()).WhichOneof("frame") == "pong"  # the cancel was read
            gate.open.set()
            answers = [await caller.read(), await caller.read()]
            assert answers[0].result.call_id == 1
            assert answers[1].error.code == expert_pb2.ERROR_CODE_CANCELLED
            assert answers[1].error.call_id == 2


async def test_a_call_whose_time_passed_in_the_queue_is_not_computed():
    gate = Gate()
    async with running_pool(compute=gate, inline_rows=0) as pool:
        async with calling(pool.address) as caller:
            await caller.send(execute=caller.call())
            await until(gate.started.is_set)
            await caller.send(execute=caller.call(timeout_ms=1))
            await until(lambda: pool.servicer._executor.waiting == 1)
            await asyncio.sleep(0.05)
            gate.open.set()
            assert (await caller.read()).result.call_id == 1
            late = await caller.read()
            assert late.error.code == expert_pb2.ERROR_CODE_DEADLINE_EXCEEDED
            assert late.error.call_id == 2
            assert gate.order == [1]


async def test_decode_overtakes_prefill_and_callers_take_turns():
    gate = Gate()
    async with running_pool(compute=gate, inline_rows=0) as pool:
        async with (
            calling(pool.address, hello=False) as one,
            calling(pool.address, hello=False) as two,
        ):
            await one.hello(caller_id="one")
            await two.hello(caller_id="two")
            await one.send(execute=execute_frame(call_id=1))
            await until(gate.started.is_set)
            frames = [(one, 2, PREFILL), (one, 3, 1), (one, 4, 1), (two, 5, 1)]
            for count, (caller, call_id, phase) in enumerate(frames, 1):
                await caller.send(execute=execute_frame(call_id=call_id, phase=phase))
                await until(lambda count=count: pool.servicer._executor.waiting == count)
            gate.open.set()
            for _ in range(4):
                await one.read()
            await two.read()
    assert gate.order.index(2) > gate.order.index(3)  # unless prefill had waited too long
    assert gate.order.index(5) < gate.order.index(4)


async def test_a_failing_computation_is_an_internal_error_without_details():
    def broken(call: Any) -> torch.Tensor:
        raise RuntimeError("secret path /srv/weights")

    async with running_pool(compute=broken) as pool, calling(pool.address) as caller:
        for frame in (caller.call(), routed_frame(50, 20)[0]):
            error = await caller.error_of(frame)
            assert error.code == expert_pb2.ERROR_CODE_INTERNAL
            assert "secret" not in error.message


async def test_a_leaving_pool_refuses_new_calls_with_draining():
    async with running_pool() as pool, calling(pool.address) as caller:
        pool.servicer.draining = True
        error = await caller.error_of(caller.call())
        assert error.code == expert_pb2.ERROR_CODE_DRAINING


async def test_calls_sent_before_a_half_close_are_still_answered():
    gate = Gate()
    async with running_pool(compute=gate, inline_rows=0) as pool:
        async with calling(pool.address) as caller:
            for _ in range(3):
                await caller.send(execute=caller.call())
            await caller.stream.done_writing()
            await asyncio.sleep(0.05)
            gate.open.set()
            assert [(await caller.read()).result.call_id for _ in range(3)] == [1, 2, 3]
            assert (await caller.ended())[0] is grpc.StatusCode.OK


async def test_a_caller_that_goes_away_leaves_no_work_behind():
    gate = Gate()
    async with running_pool(compute=gate, inline_rows=0) as pool:
        async with calling(pool.address) as other:
            async with calling(pool.address) as caller:
                for _ in range(3):
                    await caller.send(execute=caller.call())
                await until(lambda: pool.servicer._executor.waiting == 2)
            await until(lambda: len(pool.servicer.streams) == 1)
            gate.open.set()
            assert (await other.result_of(other.call())).call_id == 1
            assert len(gate.order) == 2  # the one that ran already, and the other caller's


async def test_describe_pool_shows_what_it_holds():
    async with (
        running_pool() as pool,
        open_channel(pool.address, tls=None, server_role="expert") as channel,
        calling(pool.address) as caller,
    ):
        await caller.result_of(caller.call())
        stub = expert_pb2_grpc.ExpertPoolStub(channel)
        described = await stub.DescribePool(expert_pb2.DescribePoolRequest(), timeout=10)
        assert described.hello == caller.pool_hello
        assert described.weight_bytes == (LAYERS * EXPERTS - 1) * 3 * D * 20 * 4
        assert (described.calls_total, described.streams, described.queued_calls) == (1, 1, 0)
