"""How do the choices of one response run side by side and reach its one client in order?

Each choice has a task that pulls from its `Generate` stream; a bounded queue lets a slow client
slow the attention service down instead of filling memory.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from gateway.errors import RequestError, internal
from gateway.generate.pool import AttentionPool
from gateway.generate.request import numbered_call
from gateway.generate.stream import generate
from gateway.generate.stream_state import DeadlinePassed, StreamState
from gateway.text.choice_text import PlainText
from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
    coalesce,
)
from protos import attention_pb2

log = logging.getLogger(__name__)


class Finish(Enum):
    """Why a choice has ended."""

    STOP = auto()
    LENGTH = auto()
    CALLS = auto()
    """It has called tools, and waits for their results."""


_AT_A_LIMIT = attention_pb2.Finished(reason=attention_pb2.FINISH_REASON_LENGTH)


@dataclass(slots=True)
class Update:
    """What one Tokens event, or the end, added to one choice."""

    choice: int
    events: list[ParserEvent]
    call_ids: list[str] = field(default_factory=list)
    """Of the tool calls that begin in `events`, in their order."""
    token_ids: list[int] = field(default_factory=list)
    """New tokens, which `logprobs` belongs to. A stop token is among them only when the prompt's
    log-probabilities were asked for too: such clients count one entry per token."""
    logprobs: list[attention_pb2.TokenLogprobs] = field(default_factory=list)
    thinks: list[bool] = field(default_factory=list)
    """Whether each of `token_ids` is thinking, a stop token left out."""
    emitted_ids: list[int] = field(default_factory=list)
    """Every new token, a stop token and what completed a stop string included."""
    finish: Finish | None = None
    stopped_by: str | int | None = None
    """The stop string or the request's own stop id that ended it; None for the model's EOS."""


@dataclass(kw_only=True)
class Choice:
    """One sequence on its way to the client."""

    index: int
    state: StreamState
    text: PlainText
    stop_ids: frozenset[int]
    """Ids that end this sequence and are not part of its text."""
    vocab_size: int
    on_finished: "Callable[[Choice], None]" = lambda choice: None
    """Called when the sequence has ended without an error, before its last update is sent."""
    new_call_id: Callable[[int], str] = numbered_call
    """Gives the turn's next call its id."""
    keeps_answer: bool = False
    """Whether `on_finished` reads the three lists below, which are empty otherwise."""
    thinking: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    """As the client gets them: id, name, and the fragments of their arguments."""
    text_s: float = 0.0
    """Time spent on detokenising and parsing."""


class ChoiceStreams:
    """All choices of one response. `start`, then `next_batch` until it is empty, then `close`."""

    def __init__(
        self,
        pool: AttentionPool,
        choices: Sequence[Choice],
        *,
        queued_events: int,
        on_tokens: Callable[[Choice, int], None] = lambda choice, count: None,
    ):
        self._pool = pool
        self.choices = list(choices)
        self._queue: asyncio.Queue[Update | RequestError] = asyncio.Queue(queued_events)
        self._on_tokens = on_tokens
        self._tasks: list[asyncio.Task[None]] = []
        self._unfinished = len(self.choices)
        self._failure: RequestError | None = None

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(choice)) for choice in self.choices]

    @property
    def complete(self) -> bool:
        """Every choice was delivered to its end."""
        return self._unfinished == 0

    async def next_batch(self, timeout_s: float | None = None) -> list[Update] | None:
        """All waiting updates, at least one; [] at the end; None when nothing came in time.

        Raises the RequestError of the first choice that failed, once the updates that came before
        it have been returned.
        """
        if self._failure is not None:
            raise self._failure
        if self.complete:
            return []
        try:
            async with asyncio.timeout(timeout_s):
                item = await self._queue.get()
        except TimeoutError:
            return None
        batch: list[Update] = []
        while True:
            if isinstance(item, RequestError):
                self._failure = item
                break
            batch.append(item)
            self._unfinished -= item.finish is not None
            if self._queue.empty():
                return batch
            item = self._queue.get_nowait()
        if batch:
            return batch
        raise self._failure

    def fail(self, error: RequestError) -> None:
        """End this response with an error; for when the gateway stops."""
        self._failure = error
        with contextlib.suppress(asyncio.QueueFull):  # nobody waits for a full queue
            self._queue.put_nowait(error)

    async def close(self) -> None:
        """Cancel what still runs; its RPCs are cancelled before this returns."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, choice: Choice) -> None:
        try:
            await self._pull(choice)
        except RequestError as error:
            await self._queue.put(error)
        # A bug of ours is logged with its traceback and ends this request only.
        except Exception:
            log.exception("request %s failed", choice.state.request.request_id)
            await self._queue.put(internal())

    async def _pull(self, choice: Choice) -> None:
        events = generate(
            self._pool, choice.state, vocab_size=choice.vocab_size, stop_ids=choice.stop_ids
        )
        unsent: list[int] = []  # tokens without a visible effect yet; the next update has them
        try:
            async for event in events:
                if isinstance(event, attention_pb2.Finished):
                    await self._queue.put(self._end(choice, event, unsent))
                    return
                update = self._advance(choice, event)
                unsent += update.emitted_ids
                update.emitted_ids = unsent
                if choice.text.stopped:
                    choice.on_finished(choice)
                    update.finish = Finish.STOP
                    update.stopped_by = choice.text.stop_string
                if update.events or update.token_ids or update.finish:
                    await self._queue.put(update)
                    unsent = []
                if update.finish:
                    return
        except DeadlinePassed:
            # What was generated is kept: the choice ends as if it had reached its max_tokens.
            if not any(one.state.num_generated_tokens for one in self.choices):
                raise
            await self._queue.put(self._end(choice, _AT_A_LIMIT, unsent))
        finally:
            await events.aclose()

    def _advance(self, choice: Choice, tokens: attention_pb2.Tokens) -> Update:
        self._on_tokens(choice, len(tokens.token_ids))
        update = Update(choice.index, [])
        started_s = time.perf_counter()
        for offset, token_id in enumerate(tokens.token_ids):
            update.emitted_ids.append(token_id)
            is_stop = token_id in choice.stop_ids
            if tokens.logprobs and (not is_stop or choice.state.request.sampling.prompt_logprobs):
                update.token_ids.append(token_id)
                update.logprobs.append(tokens.logprobs[offset])
            if is_stop:
                break  # the service stops here by itself; its Finished comes next
            before = choice.text.reasoning_tokens
            update.events += choice.text.push(token_id)
            if tokens.logprobs:
                update.thinks.append(choice.text.reasoning_tokens > before)
            if choice.text.stopped:
                break
        update.events = coalesce(update.events)
        _keep_answer(choice, update)
        choice.text_s += time.perf_counter() - started_s
        return update

    def _end(self, choice: Choice, finished: attention_pb2.Finished, unsent: list[int]) -> Update:
        by_length = finished.reason == attention_pb2.FINISH_REASON_LENGTH
        own_stops = choice.state.request.sampling.stop_token_ids
        by_own_stop = not by_length and finished.stop_token_id in own_stops
        events = choice.text.finish(is_cut=by_length or by_own_stop)
        stopped_by = finished.stop_token_id if by_own_stop else choice.text.stop_string
        update = Update(choice.index, events, emitted_ids=unsent, stopped_by=stopped_by)
        _keep_answer(choice, update)
        choice.on_finished(choice)
        if by_length and not choice.text.stopped:
            update.finish = Finish.LENGTH
        elif choice.text.tool_calls and not choice.text.unfinished_tool_calls:
            update.finish = Finish.CALLS
        else:
            update.finish = Finish.STOP
        return update


def _keep_answer(choice: Choice, update: Update) -> None:
    """Give the calls that begin their ids, and keep what the client is told if it is needed."""
    for event in update.events:
        if isinstance(event, ToolCallStart):
            update.call_ids.append(choice.new_call_id(event.index))
        if not choice.keeps_answer:
            continue
        if isinstance(event, ReasoningDelta):
            choice.thinking.append(event.text)
        elif isinstance(event, ContentDelta):
            choice.content.append(event.text)
        elif isinstance(event, ToolCallStart):
            choice.calls.append({"id": update.call_ids[-1], "name": event.name, "arguments": []})
        elif isinstance(event, ToolCallArguments):
            choice.calls[event.index]["arguments"].append(event.fragment)
