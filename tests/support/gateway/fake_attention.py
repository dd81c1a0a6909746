"""An attention service that follows a script instead of a model, on a real gRPC server."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio

from protos import attention_pb2, attention_pb2_grpc
from rpc.config import GRAMMAR_TAKEN, SERVER_OPTIONS

Item = (
    attention_pb2.GenerateResponse
    | attention_pb2.Tokens
    | attention_pb2.Finished
    | float
    | grpc.StatusCode
    | tuple[grpc.StatusCode, str]
)
"""An event, a pause in seconds, or a status to abort with, and its message."""

Script = Callable[[attention_pb2.GenerateRequest], Iterable[Item]]


def tokens(index: int, ids: Sequence[int]) -> attention_pb2.Tokens:
    return attention_pb2.Tokens(index=index, token_ids=ids)


def stopped(num_tokens: int, stop_id: int = 0, cached: int = 0) -> attention_pb2.Finished:
    return attention_pb2.Finished(
        reason=attention_pb2.FINISH_REASON_STOP,
        stop_token_id=stop_id,
        usage=attention_pb2.Usage(generated_tokens=num_tokens, cached_tokens=cached),
    )


def length(num_tokens: int) -> attention_pb2.Finished:
    return attention_pb2.Finished(
        reason=attention_pb2.FINISH_REASON_LENGTH,
        usage=attention_pb2.Usage(generated_tokens=num_tokens),
    )


def ended(reason: int, error: str = "", *, retryable: bool = False) -> attention_pb2.Finished:
    return attention_pb2.Finished(reason=reason, error=error, retryable=retryable)


def say(
    ids: Sequence[int], *, step: int = 1, eos: int | None = None, pause_s: float = 0.0
) -> Script:
    """Send these ids, `step` at a time, up to max_tokens; ends as STOP with `eos`, else LENGTH."""

    def script(request: attention_pb2.GenerateRequest) -> list[Item]:
        limit = request.sampling.max_tokens
        all_ids = list(ids) + ([eos] if eos is not None else [])
        kept = all_ids[:limit]
        items: list[Item] = []
        for index in range(0, len(kept), step):
            items.append(tokens(index, kept[index : index + step]))
            if pause_s:
                items.append(pause_s)
        ends_by_stop = eos is not None and len(kept) == len(all_ids)
        items.append(stopped(len(kept), eos or 0) if ends_by_stop else length(len(kept)))
        return items

    return script


def in_turn(*scripts: Script, then: Script | None = None) -> Script:
    """The next script for each request; beyond the last one `then`, or the request fails."""
    left = list(scripts)

    def script(request: attention_pb2.GenerateRequest) -> Iterable[Item]:
        if left or then is None:
            return left.pop(0)(request)
        return then(request)

    return script


@dataclass
class FakeAttention(attention_pb2_grpc.AttentionServicer):
    """Answers each Generate with `script(request)` and keeps what it saw."""

    script: Script
    status: attention_pb2.GetStatusResponse
    requests: list[attention_pb2.GenerateRequest] = field(default_factory=list)
    cancelled: int = 0
    completed: int = 0
    running: int = 0
    tokens_sent: int = 0
    status_delay_s: float = 0.0
    polls: int = 0
    takes_grammars: bool = False
    """Acknowledge a grammar as soon as it comes and know it by its digest from then on."""
    known_grammars: set[bytes] = field(default_factory=set)
    port: int = 0

    async def Generate(self, request, context):
        self.requests.append(request)
        self.running += 1
        try:
            items = self.script(request)
            if self.takes_grammars:
                items = list(items)
                await self._take_grammar(request, context, refused=isinstance(items[0], tuple))
            for item in items:
                if isinstance(item, float | int):
                    await asyncio.sleep(item)
                elif isinstance(item, grpc.StatusCode):
                    await context.abort(item, f"scripted {item.name}")
                elif isinstance(item, tuple):
                    await context.abort(*item)
                elif isinstance(item, attention_pb2.Tokens):
                    self._fill_logprobs(request, item)
                    self.tokens_sent += len(item.token_ids)
                    await context.write(attention_pb2.GenerateResponse(tokens=item))
                elif isinstance(item, attention_pb2.Finished):
                    self._fill_timings(request, item)
                    await context.write(attention_pb2.GenerateResponse(finished=item))
                else:
                    await context.write(item)
            self.completed += 1
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def GetStatus(self, request, context):
        self.polls += 1
        await asyncio.sleep(self.status_delay_s)
        return self.status

    async def _take_grammar(self, request, context, *, refused: bool):
        if request.grammar_id and request.grammar_id not in self.known_grammars:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "grammar_id is not known to this service; send the grammar",
            )
        if not refused:
            self.known_grammars.add(hashlib.sha256(request.grammar.text.encode()).digest())
            await context.send_initial_metadata((GRAMMAR_TAKEN,))

    def _fill_logprobs(
        self, request: attention_pb2.GenerateRequest, event: attention_pb2.Tokens
    ) -> None:
        if not request.sampling.logprobs or event.logprobs:
            return
        for token_id in event.token_ids:
            count = request.sampling.top_logprobs
            event.logprobs.add(
                logprob=-0.5,
                top_token_ids=[token_id, *range(65, 65 + count)][:count],
                top_logprobs=[-0.5 - rank for rank in range(count)],
            )

    def _fill_timings(
        self, request: attention_pb2.GenerateRequest, event: attention_pb2.Finished
    ) -> None:
        if request.report_timings:
            event.timings.CopyFrom(
                attention_pb2.Timings(queue_ms=1, attention_ms=2, network_ms=3, total_ms=9, steps=4)
            )

    async def serve(self) -> grpc.aio.Server:
        """Start on a free port of 127.0.0.1."""
        server = grpc.aio.server(options=SERVER_OPTIONS)
        attention_pb2_grpc.add_AttentionServicer_to_server(self, server)
        self.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server
