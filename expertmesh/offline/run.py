"""How is a batch run? Everything is encoded and checked first, then the engine is kept full."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from expertmesh.offline.backend import Backend, Delta, Job
from expertmesh.offline.chat_message import message_of
from expertmesh.offline.checks import python_errors
from expertmesh.offline.collect import Collector
from expertmesh.offline.merge import cancel_all, merge
from expertmesh.offline.prompts import GivenPrompt
from expertmesh.offline.sampling_params import RequestOutputKind, SamplingParams
from expertmesh.outputs import RequestOutput
from gateway.errors import ContextExceeded
from gateway.openai.field_rules import FieldRules

log = logging.getLogger(__name__)

_ENCODE_AT_ONCE = 16

Numbered = Sequence[tuple[str, int]]
"""(request id, seed) of each request."""


async def prepare_prompts(
    backend: Backend,
    given: Sequence[GivenPrompt],
    params: Sequence[SamplingParams],
    numbered: Numbered,
    *,
    control_tokens: bool,
) -> list[Job]:
    """The encoded prompts as jobs, in order. Raises ValueError naming the prompt."""
    looks_rendered = any(
        one.ids is None and marker in (one.text or "")
        for one in given
        for marker in backend.chat_format.turn_markers
    )
    if looks_rendered and not control_tokens:
        log.warning(
            "generate: a prompt contains the text of control tokens, which is taken as plain text; "
            "use chat(), get_tokenizer().apply_chat_template(), or LLM(parse_control_tokens=True)"
        )

    async def encode(one: GivenPrompt) -> list[int]:
        if one.ids is not None:
            return one.ids
        return await backend.encode(one.text or "", control_tokens=control_tokens)

    ids = await _bounded([encode(one) for one in given])
    for one, prompt_ids in zip(given, ids, strict=True):
        _check_room(backend, one.name, prompt_ids)
    return [
        Job(request_id=number, prompt=one.text, prompt_ids=prompt_ids, params=own, seed=seed)
        for one, prompt_ids, own, (number, seed) in zip(given, ids, params, numbered, strict=True)
    ]


async def prepare_chats(
    backend: Backend,
    conversations: Sequence[list[Any]],
    params: Sequence[SamplingParams],
    numbered: Numbered,
    tools: Sequence[Any],
) -> list[Job]:
    """The rendered conversations as jobs, in order. Raises ValueError naming the field."""

    async def render(conversation: list[Any]) -> tuple[list[int], str]:
        ids = await backend.render(conversation, tools)
        return ids, await backend.decode(ids)

    rendered = await _bounded([render(conversation) for conversation in conversations])
    for ids, _ in rendered:
        _check_room(backend, "messages", ids)
    return [
        Job(
            request_id=number,
            prompt=text,
            prompt_ids=ids,
            params=own,
            seed=seed,
            tools=tuple(tools),
        )
        for (ids, text), own, (number, seed) in zip(rendered, params, numbered, strict=True)
    ]


async def run_jobs(
    backend: Backend,
    jobs: Sequence[Job],
    parallel: int,
    *,
    whole: bool = False,
    on_open: Callable[[Job], None] = lambda job: None,
    on_delta: Callable[[Job, Delta], None] = lambda job, delta: None,
) -> AsyncGenerator[RequestOutput, None]:
    """Outputs as they arrive, as each job's output_kind says; with `whole` one for each job."""

    async def answer(job: Job) -> AsyncGenerator[RequestOutput, None]:
        on_open(job)
        collector = Collector(job)
        at_end = whole or job.params.output_kind == RequestOutputKind.FINAL_ONLY
        async with contextlib.aclosing(backend.stream(job)) as deltas:
            async for delta in deltas:
                collector.add(delta)
                on_delta(job, delta)
                choice = collector.choices[delta.index]
                if job.tools is not None and choice.finished():
                    choice.message = await message_of(backend, job, choice)
                if not at_end:
                    yield collector.output(delta)
        if at_end:
            yield collector.output()

    answers = merge([answer(job) for job in jobs], at_once=max(1, parallel))
    async with contextlib.aclosing(answers):
        async for output in answers:
            yield output


_TEMPLATE = {
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "add_generation_prompt",
}


def check_chat_fields(arguments: dict[str, Any]) -> dict[str, Any]:
    """The other arguments, once those of the template are found to ask for nothing.

    Raises ValueError for one that would change the template, as the gateway does.
    """
    with python_errors():
        FieldRules().check({name: arguments[name] for name in _TEMPLATE & arguments.keys()}, ())
    return {name: value for name, value in arguments.items() if name not in _TEMPLATE}


def _check_room(backend: Backend, name: str, ids: Sequence[int]) -> None:
    if len(ids) >= backend.max_model_len:
        with python_errors():
            raise ContextExceeded(name, len(ids), backend.max_model_len, at_least=False)


async def _bounded(work: list[Any]) -> list[Any]:
    """The results in order, a few at a time; the first error closes the others."""
    slots = asyncio.Semaphore(_ENCODE_AT_ONCE)

    async def one(item: Any) -> Any:
        async with slots:
            return await item

    tasks = [asyncio.create_task(one(item)) for item in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await cancel_all(tasks)
        for item in work:
            item.close()
