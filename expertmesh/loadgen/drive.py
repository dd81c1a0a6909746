"""How is the load applied? Arrivals, a limit on concurrency, and conversations turn by turn."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from expertmesh.loadgen.arrivals import start_offsets_s
from expertmesh.loadgen.record import Record
from expertmesh.loadgen.target import CHAT, COMPLETIONS, Target
from expertmesh.loadgen.workload import Conversation


async def drive(
    target: Target,
    conversations: Sequence[Conversation],
    records: list[Record],
    *,
    rate: float,
    burstiness: float,
    max_concurrency: int | None,
    seed: int,
    chat: bool,
    on_done: Callable[[Record], None] = lambda record: None,
) -> None:
    """Send all requests, adding a Record for each to `records`. Cancel it to stop early."""
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(max_concurrency or len(conversations) or 1)
    started_s = loop.time()

    async def converse(conversation: Conversation, offset_s: float) -> None:
        await asyncio.sleep(max(0.0, started_s + offset_s - loop.time()))
        async with slots:
            await play(target, conversation, records, chat=chat, on_done=on_done)

    offsets = start_offsets_s(len(conversations), rate, burstiness, seed)
    async with asyncio.TaskGroup() as tasks:
        for conversation, offset_s in zip(conversations, offsets, strict=True):
            tasks.create_task(converse(conversation, offset_s))


async def play(
    target: Target,
    conversation: Conversation,
    records: list[Record],
    *,
    chat: bool,
    on_done: Callable[[Record], None] = lambda record: None,
) -> None:
    """Send the turns of a conversation; a failed turn ends it."""
    system = conversation.system
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for turn in conversation.turns:
        messages.append({"role": "user", "content": turn.text})
        prompt = list(turn.ids) or turn.text
        path, what = (CHAT, {"messages": messages}) if chat else (COMPLETIONS, {"prompt": prompt})
        record = Record()
        records.append(record)
        answer = await target.ask(path, what, turn.output_len, record)
        on_done(record)
        if record.error is not None:
            return
        messages.append(answer)


async def probe(target: Target, conversation: Conversation, *, chat: bool) -> Target:
    """Send one request before measuring. Raises ValueError if the server cannot be used.

    Returns the target to use: without the extra fields if the server refuses them.
    """
    plain = replace(target, continuous_usage=False, timings=False)
    for candidate in (target, plain):
        records: list[Record] = []
        first_turn = replace(conversation, turns=conversation.turns[:1])
        await play(candidate, first_turn, records, chat=chat)
        if records[0].error is None:
            return candidate
        if not records[0].error.startswith(("HTTP 400", "HTTP 422")):
            break
    raise ValueError(f"{target.server.root}: the first request failed: {records[0].error}")
