"""`AsyncLLM`: requests of one loop run in the same steps, and end when nobody listens."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from expertmesh import LLM, AsyncLLM, SamplingParams
from expertmesh.offline.sampling_params import RequestOutputKind

GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
PROMPTS = ["Sort", "Hello, my name is", "!", "a"]
USER = [{"role": "user", "content": "Hello"}]


@pytest.fixture
async def llm(folder: Path) -> AsyncIterator[AsyncLLM]:
    async with AsyncLLM(model=folder, kv_memory="8MiB") as one:
        yield one


def value_of(llm: AsyncLLM, name: str, **labels: str) -> Any:
    found = [m for m in llm.get_metrics() if m.name == name and labels.items() <= m.labels.items()]
    (metric,) = found
    return metric


async def until_idle(llm: AsyncLLM) -> bool:
    """Within a second: the cache can be reset, so nothing runs."""
    for _ in range(100):
        if await llm.reset_prefix_cache():
            return True
        await asyncio.sleep(0.01)
    return False


async def test_requests_at_the_same_time_share_steps_and_get_what_they_get_alone(llm, folder):
    params = SamplingParams(max_tokens=24, **GREEDY)

    async def last(prompt: str) -> Any:
        outputs = [output async for output in llm.generate(prompt, params, f"my {prompt}")]
        assert [one.request_id for one in outputs] == [f"my {prompt}"] * len(outputs)
        return outputs[-1]

    together = await asyncio.gather(*map(last, PROMPTS))
    # One part of each step is observed once a step: far fewer than one for each token.
    steps = value_of(llm, "expertmesh_step_seconds", part="schedule").count
    assert 24 <= steps < 2 * 24
    with LLM(model=folder, kv_memory="8MiB") as plain:
        alone = plain.generate(PROMPTS, params)
    assert [o.outputs[0].token_ids for o in together] == [o.outputs[0].token_ids for o in alone]


async def test_outputs_grow_or_are_deltas_and_chats_end_with_a_message(llm):
    params = SamplingParams(max_tokens=6, **GREEDY)
    texts = [o.outputs[0].text async for o in llm.chat(USER, params)]
    assert len(texts) > 1
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    params.output_kind = RequestOutputKind.DELTA
    outputs = [one async for one in llm.chat(USER, params)]
    assert "".join(one.outputs[0].text for one in outputs) == texts[-1]
    assert outputs[-1].outputs[0].message["role"] == "assistant"


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_who_leaves_cancels_and_the_others_go_on(llm, how: str):
    long = SamplingParams(max_tokens=400, **GREEDY)
    stays = asyncio.ensure_future(anext(llm.generate("a", SamplingParams(max_tokens=8, **GREEDY))))
    if how == "closed":
        outputs = llm.generate("Sort", long)
        assert not (await anext(outputs)).finished
        await outputs.aclose()
    else:
        started = asyncio.Event()

        async def listen() -> None:
            async for _ in llm.generate("Sort", long):
                started.set()

        task = asyncio.create_task(listen())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await stays
    assert await until_idle(llm)


async def test_a_wrong_request_is_refused(llm):
    for call, error, words in (
        (llm.generate(""), ValueError, "prompts"),
        (llm.generate(["a", "b"]), ValueError, "prompt: one for each call, got 2"),
        (llm.generate("a", temperature=0), TypeError, "SamplingParams"),
        (llm.chat(USER, chat_template="x"), ValueError, "chat_template"),
    ):
        with pytest.raises(error, match=words):
            await anext(call)
    tokenizer = await llm.get_tokenizer()
    assert tokenizer.decode(tokenizer.encode("Sort")) == "Sort"
    assert llm.max_model_len == 512


async def test_closing_ends_what_runs_and_its_threads(folder):
    before = set(threading.enumerate())
    llm = AsyncLLM(model=folder, kv_memory="8MiB")
    outputs = llm.generate("Sort", SamplingParams(max_tokens=400, **GREEDY))
    await anext(outputs)
    llm.shutdown()
    await llm.close()
    assert [one.name for one in set(threading.enumerate()) - before if "llm" in one.name] == []
    with pytest.raises((RuntimeError, StopAsyncIteration)):
        await anext(outputs)
    with pytest.raises(RuntimeError, match="closed"):
        await anext(llm.generate("Sort"))
