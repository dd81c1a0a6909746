"""Clients: requests followed token by token from threads of their own."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import rpc  # noqa: F401  sets grpc's environment before grpc is imported

import grpc  # isort: skip
import torch

from moe_model.reference import ReferenceModel
from moe_model.weights.checkpoint import Checkpoint
from protos import attention_pb2, attention_pb2_grpc
from tests.support.chaos.history import Ask, History, Verdict, check

CALL_LIMIT_S = 90.0
"""Longest any request may take here: no client hangs."""


def follow(stub: attention_pb2_grpc.AttentionStub, history: History) -> None:
    """Send the request and note what comes, to its end."""
    ask = history.ask
    sampling = attention_pb2.SamplingParams(
        max_tokens=ask.max_tokens,
        temperature=ask.temperature,
        top_p=1.0,
        seed=ask.seed,
        repetition_penalty=1.0,
        ignore_eos=True,
    )
    request = attention_pb2.GenerateRequest(
        prompt_token_ids=ask.prompt,
        sampling=sampling,
        timeout_ms=ask.timeout_ms,
        cache_salt=ask.salt,
    )
    history.sent_s = time.monotonic()
    try:
        for response in stub.Generate(request, timeout=CALL_LIMIT_S):
            now_s = time.monotonic()
            history.late_events += bool(history.terminals)
            kind = response.WhichOneof("event")
            if kind == "tokens":
                tokens = response.tokens
                history.events.append((now_s, tokens.index, tuple(tokens.token_ids)))
            elif kind == "finished":
                history.terminals.append(response.finished)
    except grpc.RpcError as error:
        history.status = f"{error.code().name}: {error.details()}"
    history.ended_s = time.monotonic()


class Request(threading.Thread):
    """One request, followed to its end."""

    def __init__(self, address: str, ask: Ask):
        super().__init__(daemon=True)
        self._address = address
        self.history = History(ask)
        self.start()

    def run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            follow(attention_pb2_grpc.AttentionStub(channel), self.history)

    def has(self, num_tokens: int, within_s: float = 30.0) -> "Request":
        """Wait until so many tokens have come."""
        until(lambda: len(self.history.tokens) >= num_tokens or not self.is_alive(), within_s)
        return self

    def wait(self, within_s: float = 60.0) -> History:
        self.join(within_s)
        assert not self.is_alive(), "the request hangs"
        return self.history


class Load:
    """Clients that each send one request after the other until told to stop."""

    def __init__(
        self,
        address: str,
        asks: Sequence[Ask],
        num_streams: int,
        *,
        send: Callable[[History], None] | None = None,
    ):
        """`send`: follows a request to its end; by default over gRPC to the address."""
        self._asks = asks
        self._stopping = threading.Event()
        self._channel = grpc.insecure_channel(address)
        stub = attention_pb2_grpc.AttentionStub(self._channel)
        self._send = send or (lambda history: follow(stub, history))
        self.streams: list[list[History]] = [[] for _ in range(num_streams)]
        self._threads = [
            threading.Thread(target=self._client, args=(number,), daemon=True)
            for number in range(num_streams)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def _client(self, number: int) -> None:
        turn = number
        while not self._stopping.is_set():
            history = History(self._asks[turn % len(self._asks)])
            self.streams[number].append(history)
            self._send(history)
            turn += 1
            if history.status:
                self._stopping.wait(0.1)  # pause after a refusal

    def warm(self, num_tokens: int = 20, within_s: float = 60.0) -> None:
        """Wait until every stream has had so many tokens."""
        until(
            lambda: all(
                sum(len(history.events) for history in stream) >= num_tokens
                for stream in self.streams
            ),
            within_s,
        )

    def stop(self) -> None:
        """No new requests."""
        self._stopping.set()

    def finish(self) -> None:
        """No new requests; wait for the running ones."""
        self.stop()
        for thread in self._threads:
            thread.join(CALL_LIMIT_S + 10)
        self._channel.close()

    @property
    def histories(self) -> list[History]:
        return [history for stream in self.streams for history in stream]


class Oracle:
    """What each request has to yield: the reference's greedy tokens, or those of a quiet run."""

    def __init__(self, model: Path):
        torch.set_num_threads(1)  # more threads would compete with the services for the cores
        self._reference = ReferenceModel(Checkpoint.open(model))
        self._known: dict[Ask, list[int]] = {}

    def tokens(self, ask: Ask) -> list[int]:
        if ask not in self._known:
            assert not ask.temperature, "a sampled request has to be learnt from a quiet run"
            self._known[ask] = self._reference.greedy(list(ask.prompt), ask.max_tokens, frozenset())
        return self._known[ask]

    def learn(self, history: History) -> None:
        """Take a sampled request's tokens from a run that nothing disturbed."""
        assert history.finished, "the quiet run failed"
        self._known[history.ask] = history.tokens

    def check(self, histories: Iterable[History]) -> Verdict:
        return sum((check(one, self.tokens(one.ask)) for one in histories), Verdict())


def until(condition: Callable[[], bool], within_s: float = 30.0, pause_s: float = 0.01) -> float:
    """Wait for a condition; the seconds it took. Raises AssertionError when it does not come."""
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < within_s, "it did not come about in time"
        time.sleep(pause_s)
    return time.monotonic() - started_s
