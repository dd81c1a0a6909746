"""How does `LLM` generate in this process? With the services' own code, but without servers.

The engine is the attention service's, and the core on top of it the gateway's.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attention_svc.config import AttentionConfig
from attention_svc.running import RunningEngine, without_server
from expertmesh.offline.backend import Delta, Job
from expertmesh.offline.checks import LIMITS, python_errors, read_fields
from expertmesh.offline.local_pool import LocalContext, local_pool
from expertmesh.offline.merge import merge
from expertmesh.offline.metrics import Metric, read_metrics
from expertmesh.offline.output_text import OutputText
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.outputs import Logprob
from gateway.generate.core import Choice, Core
from gateway.generate.request import ChatOptions, Generation
from gateway.text.model_files import load_model_files
from gateway.text.prompt_encoder import ChatNames, EncodedPrompt, PromptEncoder
from moe_model.text.segments import Segment
from protos import attention_pb2

_NO_LIMIT = 1_000_000_000
_NAMES = ChatNames(messages="messages", tools="tools")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of an engine in this process; the defaults are the attention service's."""

    model: Path
    load: str = ""
    dtype: str = "auto"
    expert_dtype: str = "auto"
    linear_dtype: str = "auto"
    device: str = "auto"
    gpu_memory: float = 0.9
    kv_memory: str = "auto"
    kv_host_memory: str = "0"
    max_model_len: int = 0
    max_running: int = 64
    max_batch_tokens: int = 0
    threads: int = 0


class InProcessBackend:
    """Use `open_in_process`."""

    def __init__(
        self,
        core: Core,
        running: RunningEngine,
        options: EngineOptions,
        exits: contextlib.AsyncExitStack,
    ):
        self._core = core
        self._running = running
        self._model = core.model
        self._exits = exits
        self.max_model_len = core.max_model_len
        self.chat_format = core.model.chat_format
        self.marker_ids = core.model.tokenizer.marker_ids
        self.special_ids = core.model.tokenizer.special_ids
        self.bos_token_id = core.model.bos_token_id
        self.eos_token_id = core.model.eos_token_id
        # More than run at once, so that the scheduler always has a request waiting.
        self.default_parallel = 2 * options.max_running
        defaults = core.model.defaults
        self.default_params = SamplingParams(
            temperature=defaults.temperature,
            top_p=defaults.top_p,
            top_k=defaults.top_k,
            repetition_penalty=defaults.repetition_penalty,
        )

    async def close(self) -> None:
        await self._exits.aclose()

    async def encode(self, text: str, *, control_tokens: bool) -> list[int]:
        if control_tokens:
            return self._model.tokenizer.encode_segments(
                _segments(text, self._model.tokenizer.marker_ids)
            )
        with python_errors():
            return await self._core.encoder.text("prompt", text, max_model_len=self.max_model_len)

    async def render(
        self, messages: list[Any], tools: Sequence[Any], *, add_generation_prompt: bool = True
    ) -> list[int]:
        with python_errors():
            encoded = await self._core.encoder.chat(
                messages,
                list(tools),
                names=_NAMES,
                tenant="",
                body_bytes=len(repr(messages)),
                max_model_len=self.max_model_len,
                add_generation_prompt=add_generation_prompt,
            )
            return list(encoded.ids)

    async def decode(self, ids: Sequence[int]) -> str:
        return self._model.tokenizer.decode(ids)

    async def metrics(self) -> list[Metric]:
        return read_metrics(self._running.metrics.registry.collect())

    async def reset_prefix_cache(self) -> bool:
        return self._running.engine.reset_prefix_cache()

    async def stream(self, job: Job) -> AsyncGenerator[Delta, None]:
        with python_errors():
            params = job.params
            vocab_size = self._model.config.vocab_size
            answers = read_fields(params.http_fields(), self._model.defaults, vocab_size=vocab_size)
            if job.tools is not None:
                answers = replace(answers, chat=ChatOptions(tools=job.tools))
            answers.sampling.seed = job.seed
            if params.prompt_logprobs is not None:
                sampling = answers.sampling
                sampling.logprobs = sampling.prompt_logprobs = True
                sampling.top_logprobs = max(sampling.top_logprobs, params.prompt_logprobs)
            prompt = EncodedPrompt(ids=job.prompt_ids, field="prompt")
            choices = self._core.choices(
                Generation(
                    request_id=job.request_id, prompts=[prompt], answers=answers, with_timings=True
                )
            )
            answering = [self._answer(job, choice) for choice in choices]
            source = answering[0] if params.n == 1 else merge(answering, at_once=params.n)
            async with contextlib.aclosing(source) as deltas:
                async for delta in deltas:
                    yield delta

    async def _answer(self, job: Job, choice: Choice) -> AsyncGenerator[Delta, None]:
        params, told = job.params, False
        text = self._text(params)
        async with contextlib.aclosing(self._core.events(choice)) as events:
            async for event in events:
                if isinstance(event, attention_pb2.Finished):
                    choice.on_finished(choice)
                    yield _end(event, choice, text, params)
                    return
                delta = Delta(choice.index)
                if choice.index == 0 and params.prompt_logprobs is not None and not told:
                    told = True
                    delta.prompt_logprobs = self._of_prompt(job, choice)
                for offset, token_id in enumerate(event.token_ids):
                    delta.token_ids.append(token_id)
                    if params.logprobs is not None:
                        delta.logprobs.append(
                            self._logprobs(token_id, event.logprobs[offset], params.logprobs)
                        )
                    delta.text += text.push(token_id, is_stop=token_id in choice.stop_ids)
                    if text.stop_string is not None:
                        delta.finish_reason = "stop"
                        delta.stop_reason = text.stop_string
                        break
                yield delta
                if delta.finish_reason is not None:
                    return

    def _text(self, params: SamplingParams) -> OutputText:
        tokenizer = self._model.tokenizer

        def bytes_of(token_id: int) -> bytes:
            if not params.detokenize:
                return b""
            return tokenizer.token_bytes(token_id, skip_special_tokens=params.skip_special_tokens)

        stops = [params.stop] if isinstance(params.stop, str) else params.stop or []
        return OutputText(bytes_of, stops, include_stop=params.include_stop_str_in_output)

    def _of_prompt(self, job: Job, choice: Choice) -> list[dict[int, Logprob] | None]:
        most = job.params.prompt_logprobs or 0
        pairs = zip(job.prompt_ids[1:], choice.state.prompt_logprobs, strict=True)
        return [None, *(self._logprobs(token_id, told, most) for token_id, told in pairs)]

    def _logprobs(
        self, token_id: int, told: attention_pb2.TokenLogprobs, most: int
    ) -> dict[int, Logprob]:
        top_ids = list(told.top_token_ids)[:most]
        rank = top_ids.index(token_id) + 1 if token_id in top_ids else None
        decode = self._model.tokenizer.decode
        entry = {token_id: Logprob(told.logprob, rank, decode([token_id]))}
        for place, (other, logprob) in enumerate(zip(top_ids, told.top_logprobs, strict=False)):
            entry.setdefault(other, Logprob(logprob, place + 1, decode([other])))
        return entry


async def open_in_process(options: EngineOptions) -> InProcessBackend:
    """Load the model and start the engine on this loop. Raises ValueError for bad options."""
    async with contextlib.AsyncExitStack() as exits:
        model = await asyncio.to_thread(load_model_files, options.model, ())
        service = without_server(
            AttentionConfig(
                model=options.model,
                load=options.load,
                transport="in_process",
                dtype=options.dtype,
                expert_dtype=options.expert_dtype,
                linear_dtype=options.linear_dtype,
                device=options.device,
                gpu_memory=options.gpu_memory,
                kv_memory=options.kv_memory,
                kv_host_memory=options.kv_host_memory,
                max_model_len=options.max_model_len,
                max_running=options.max_running,
                max_batch_tokens=options.max_batch_tokens,
                # There are no other clients, and `merge` bounds the open requests.
                max_waiting=_NO_LIMIT,
                max_waiting_tokens=_NO_LIMIT,
                threads=options.threads,
            )
        )
        running = await exits.enter_async_context(service)
        servicer = running.servicer
        status = await servicer.GetStatus(attention_pb2.GetStatusRequest(), LocalContext())
        pool = local_pool(servicer, status)
        exits.push_async_callback(pool.stop)
        encoder = PromptEncoder(model, LIMITS)
        exits.callback(encoder.close)
        core = Core(limits=LIMITS, model=model, pool=pool, encoder=encoder)
        return InProcessBackend(core, running, options, exits.pop_all())


def _end(
    finished: attention_pb2.Finished,
    choice: Choice,
    text: OutputText,
    params: SamplingParams,
) -> Delta:
    """The last delta: text held back until now, why the answer ended, its timings."""
    state = choice.state
    delta = Delta(choice.index, text.finish(), num_cached_tokens=state.num_cached_tokens)
    delta.finish_reason = "stop"
    if text.stop_string is not None:
        delta.stop_reason = text.stop_string
    elif finished.reason == attention_pb2.FINISH_REASON_LENGTH:
        delta.finish_reason = "length"
    elif finished.stop_token_id in (params.stop_token_ids or ()):
        delta.stop_reason = finished.stop_token_id
    if state.timings is not None:
        fields = state.timings.DESCRIPTOR.fields
        delta.timings = {field.name: getattr(state.timings, field.name) for field in fields}
    return delta


def _segments(text: str, markers: Iterable[str]) -> list[Segment]:
    """The text, split at the texts of control tokens (the longest that matches)."""
    pattern = "|".join(re.escape(marker) for marker in sorted(markers, key=len, reverse=True))
    parts = re.split(f"({pattern})", text)
    return [Segment(part, is_marker=i % 2 == 1) for i, part in enumerate(parts) if part]
