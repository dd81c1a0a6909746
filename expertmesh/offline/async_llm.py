"""`AsyncLLM`: `LLM` for asyncio programs. Requests that run at the same time share the batches.

from expertmesh import AsyncLLM, SamplingParams

async with AsyncLLM(model="path/to/checkpoint") as llm:
    async for output in llm.generate("Hello", SamplingParams(max_tokens=32)):
        print(output.outputs[0].text)
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from expertmesh.offline.backend import Job
from expertmesh.offline.llm import LLM
from expertmesh.offline.metrics import Metric
from expertmesh.offline.run import check_chat_fields
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.offline.tokenizer_view import TokenizerView
from expertmesh.outputs import RequestOutput


class AsyncLLM:
    """A model to generate with, from any loop. Close it, or use it in `async with`.

    The engine runs on a loop in a thread of its own, so a long step does not hold up the caller's.
    """

    def __init__(self, model: str | Path | None = None, **arguments: Any):
        """The arguments are those of `LLM`. Loading blocks; raises ValueError as LLM does."""
        self._llm = LLM(model, **arguments)
        self._opened = self._llm.opened

    async def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        **unknown: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Outputs of one prompt as they grow, in every form of prompt that `LLM.generate` takes.

        Each holds the whole text so far, unless the parameters' output_kind says otherwise. Leaving
        early and closing the iterator, or cancelling its task, cancels the request. request_id: the
        outputs' request_id; None: a number.
        Raises ValueError for a bad request, GenerationFailed, and RuntimeError once it is closed.
        """
        self._opened.check_call(unknown, "generate")
        jobs = self._opened.generate_jobs(prompt, sampling_params)
        async with contextlib.aclosing(self._answers(jobs, "prompt", request_id)) as outputs:
            async for output in outputs:
                yield output

    async def chat(
        self,
        messages: list[Any],
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        tools: Sequence[Any] | None = None,
        **unknown: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """The same for one conversation; the last output has `message`, as `LLM.chat` does."""
        self._opened.check_call(check_chat_fields(unknown), "chat")
        jobs = self._opened.chat_jobs(messages, sampling_params, tools)
        async with contextlib.aclosing(self._answers(jobs, "messages", request_id)) as outputs:
            async for output in outputs:
                yield output

    async def get_tokenizer(self) -> TokenizerView:
        """That of `LLM`, whose methods are plain calls."""
        return self._llm.get_tokenizer()

    def get_metrics(self) -> list[Metric]:
        """As `LLM.get_metrics`."""
        return self._llm.get_metrics()

    async def reset_prefix_cache(self) -> bool:
        """As `LLM.reset_prefix_cache`."""
        return await self._opened.loop.wait_for(self._opened.backend.reset_prefix_cache())

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and output together."""
        return self._llm.max_model_len

    async def close(self) -> None:
        """Cancel running requests, free the engine, end its threads. May be called twice."""
        await asyncio.to_thread(self._opened.close)

    def shutdown(self) -> None:
        """The same as a plain call."""
        self._opened.close()

    async def __aenter__(self) -> "AsyncLLM":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _answers(
        self, preparing: Coroutine[Any, Any, list[Job]], name: str, request_id: str | None
    ) -> AsyncGenerator[RequestOutput, None]:
        loop = self._opened.loop
        jobs = await loop.wait_for(preparing)
        if len(jobs) != 1:
            raise ValueError(f"{name}: one for each call, got {len(jobs)}; call it several times")
        if request_id is not None:
            jobs = [replace(jobs[0], request_id=request_id)]
        running = loop.iterate_async(self._opened.stream(jobs))
        async with contextlib.aclosing(running) as outputs:
            async for output in outputs:
                yield output
