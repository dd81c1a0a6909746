"""How long does a stream that lost its service wait for room elsewhere? One limit in all."""

from collections.abc import AsyncIterator, Callable, Sequence, Set
from types import SimpleNamespace
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from gateway.errors import Kind, RequestError, overloaded
from gateway.generate import stream as generation
from gateway.generate.pool import AttentionPool
from gateway.generate.replica import Replica
from gateway.generate.stream_state import StreamState
from protos import attention_pb2

POLL_S = 0.1
PATIENCE = int(generation.ROOM_WAIT_S / POLL_S)


class Call:
    """A Generate that sends so many tokens and then fails."""

    def __init__(self, index: int, num_tokens: int, code: grpc.StatusCode):
        self._tokens = range(index, index + num_tokens)
        self._code = code

    async def __aiter__(self) -> AsyncIterator[attention_pb2.GenerateResponse]:
        for index in self._tokens:
            event = attention_pb2.Tokens(index=index, token_ids=[7])
            yield attention_pb2.GenerateResponse(tokens=event)
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(self._code, nothing, nothing, details="made up")

    def cancel(self) -> None:
        pass


class Crowd:
    """Services whose reports say they are full, and which refuse when one seems to have room."""

    def __init__(self, polls_between: int, tokens_of: Callable[[int], int]):
        """`tokens_of`: how many tokens the n-th service asked sends before it fails."""
        self.now_s = 0.0
        self.asked: list[int] = []
        """How often a stream had looked for room before each service that it was sent to."""
        self._looked = 0
        self._polls_between = polls_between
        self._tokens_of = tokens_of

    def pick(
        self,
        num_tokens: int,
        excluded: Set[str],
        keys: Sequence[int],
        *,
        client: str,
        session: str,
    ) -> Replica:
        self.now_s += POLL_S
        self._looked += 1
        if self.asked and self._looked - self.asked[-1] < self._polls_between:
            raise overloaded("full")
        self.asked.append(self._looked)
        replica = Replica(f"127.0.0.1:{len(self.asked)}", None)
        sent = self._tokens_of(len(self.asked))
        code = grpc.StatusCode.UNAVAILABLE if sent else grpc.StatusCode.RESOURCE_EXHAUSTED
        stub: Any = SimpleNamespace(
            Generate=lambda request: Call(len(request.emitted_token_ids), sent, code)
        )
        replica.stub = stub
        return replica

    def has_other(self, excluded: Set[str]) -> bool:
        return len(self.asked) < 40

    def count_migration(self, reason: str) -> None:
        pass

    def monotonic(self) -> float:
        return self.now_s


async def run(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> RequestError:
    monkeypatch.setattr(generation, "time", crowd)
    monkeypatch.setattr(generation, "_ROOM_POLL_S", 0.0)
    sampling = attention_pb2.SamplingParams(max_tokens=100)
    request = attention_pb2.GenerateRequest(prompt_token_ids=[1], sampling=sampling)
    pool = cast(AttentionPool, crowd)
    events = generation.generate(
        pool, StreamState(request=request), vocab_size=100, stop_ids=frozenset()
    )
    with pytest.raises(RequestError) as caught:
        async for _ in events:
            pass
    return caught.value


async def test_a_refusal_does_not_begin_the_wait_for_room_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd = Crowd(PATIENCE * 3 // 4, lambda turn: 1 if turn == 1 else 0)
    assert (await run(crowd, monkeypatch)).kind is Kind.OVERLOADED
    assert len(crowd.asked) == 2, "the one that was lost, and one that refused"


async def test_a_token_ends_the_wait_and_the_next_one_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd = Crowd(PATIENCE * 3 // 4, lambda turn: 1 if turn <= 3 else 0)
    error = await run(crowd, monkeypatch)
    assert len(crowd.asked) == 3, error
    assert error.reason == "not_ready", "moved twice"
