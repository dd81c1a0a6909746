"""An engine in this process: the attention service without its server, the gateway without HTTP."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from attention_svc.config import AttentionConfig
from attention_svc.running import without_server
from expertmesh.offline.backend import Delta, Job
from expertmesh.offline.checks import (
    LIMITS,
    as_python_error,
    read_fields,
    sampling_for,
)
from expertmesh.offline.local_pool import LocalContext, local_pool
from expertmesh.offline.merge import merge
from expertmesh.offline.output_text import OutputText
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.outputs import Logprob
from gateway.config import GatewayConfig
from gateway.errors import ApiError
from gateway.generate.grammar import RequestGrammar
from gateway.generate.request import new_request, starts_in_reasoning, stop_ids_of
from gateway.generate.stream import generate
from gateway.generate.stream_state import StreamState
from gateway.http.context import Gateway, KeySlots
from gateway.metrics import GatewayMetrics, StatusLine
from gateway.openai.models import CompletionRequest
from gateway.openai.output_form import FIELD, output_form
from gateway.text.model_files import load_model_files
from gateway.text.prompt_encoder import PromptEncoder
from moe_model.text.segments import Segment
from protos import attention_pb2

_NO_LIMIT = 1_000_000_000
_TENANT = ""
"""One caller: everything cached is its own."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What an engine in this process can be told; the defaults are the attention service's."""

    model: Path
    dtype: str = "auto"
    device: str = "cpu"
    kv_memory: str = "512MiB"
    max_model_len: int = 0
    max_running: int = 64
    max_batch_tokens: int = 512
    threads: int = 0


class InProcessBackend:
    """Use `open_in_process`."""

    def __init__(self, gateway: Gateway, options: EngineOptions, exits: contextlib.AsyncExitStack):
        self._gateway = gateway
        self._model = gateway.model
        self._exits = exits
        self.max_model_len = gateway.max_model_len
        self.marker_ids = gateway.model.tokenizer.marker_ids
        # More than run at once: the scheduler must never wait for us.
        self.default_parallel = 2 * options.max_running
        defaults = gateway.model.defaults
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
        with _python_errors():
            return await self._gateway.encoder.text(
                "prompt", text, max_model_len=self.max_model_len
            )

    async def render(
        self, messages: list[Any], tools: Sequence[Any], *, add_generation_prompt: bool = True
    ) -> list[int]:
        with _python_errors():
            return await self._gateway.encoder.chat(
                messages,
                list(tools),
                tenant=_TENANT,
                body_bytes=len(repr(messages)),
                max_model_len=self.max_model_len,
                add_generation_prompt=add_generation_prompt,
            )

    async def decode(self, ids: Sequence[int]) -> str:
        return self._model.tokenizer.decode(ids)

    async def stream(self, job: Job) -> AsyncGenerator[Delta, None]:
        with _python_errors():
            request = read_fields(job.params.http_fields())
            request.expertmesh_timings = True
            sampling = sampling_for(
                request,
                self._model.defaults,
                vocab_size=self._model.config.vocab_size,
                num_prompt_tokens=len(job.prompt_ids),
                max_model_len=self.max_model_len,
            )
            sampling.seed = job.seed
            if job.params.prompt_logprobs is not None:
                sampling.logprobs = sampling.prompt_logprobs = True
                sampling.top_logprobs = max(sampling.top_logprobs, job.params.prompt_logprobs)
            if job.params.n == 1:
                source = self._choice(job, request, sampling, 0)
            else:
                choices = [self._choice(job, request, sampling, i) for i in range(job.params.n)]
                source = merge(choices, at_once=job.params.n)
            async with contextlib.aclosing(source) as deltas:
                async for delta in deltas:
                    yield delta

    async def _choice(
        self,
        job: Job,
        request: CompletionRequest,
        sampling: attention_pb2.SamplingParams,
        index: int,
    ) -> AsyncGenerator[Delta, None]:
        gateway, params = self._gateway, job.params
        is_chat = job.tools is not None
        has_form = request.structured_outputs is not None
        thinks = (is_chat or has_form) and starts_in_reasoning(gateway, job.prompt_ids)
        form = output_form(request.structured_outputs, LIMITS, thinks=thinks)
        state = StreamState(
            request=new_request(
                gateway,
                request_id=job.request_id,
                prompt=job.prompt_ids,
                sampling=sampling,
                choice_idx=index,
                tenant=_TENANT,
                client_id="",
                fields=request,
                thinks=thinks,
            ),
            grammar=RequestGrammar(form, FIELD) if form is not None else None,
        )
        stop_ids, told = stop_ids_of(gateway, sampling), False
        text = self._text(params)
        events = generate(
            gateway.pool, state, vocab_size=self._model.config.vocab_size, stop_ids=stop_ids
        )
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, attention_pb2.Finished):
                    if is_chat:  # a returned answer keeps the ids it had, as at the gateway
                        known = gateway.encoder.emitted_ids
                        known.remember(_TENANT, job.prompt_ids, state.emitted_token_ids)
                    yield _end(index, event, state, text, params)
                    return
                delta = Delta(index)
                if index == 0 and params.prompt_logprobs is not None and not told:
                    told = True
                    delta.prompt_logprobs = self._of_prompt(job, state)
                for offset, token_id in enumerate(event.token_ids):
                    delta.token_ids.append(token_id)
                    if params.logprobs is not None:
                        delta.logprobs.append(
                            self._logprobs(token_id, event.logprobs[offset], params.logprobs)
                        )
                    delta.text += text.push(token_id, is_stop=token_id in stop_ids)
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

    def _of_prompt(self, job: Job, state: StreamState) -> list[dict[int, Logprob] | None]:
        most = job.params.prompt_logprobs or 0
        pairs = zip(job.prompt_ids[1:], state.prompt_logprobs, strict=True)
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
    """Load the model and start the engine on this loop. Raises ValueError for what is wrong."""
    async with contextlib.AsyncExitStack() as exits:
        model = await asyncio.to_thread(load_model_files, options.model, ())
        service = without_server(
            AttentionConfig(
                model=options.model,
                transport="in_process",
                dtype=options.dtype,
                device=options.device,
                kv_memory=options.kv_memory,
                max_model_len=options.max_model_len,
                max_running=options.max_running,
                max_batch_tokens=options.max_batch_tokens,
                # Nobody else asks, and `merge` bounds what is open.
                max_waiting=_NO_LIMIT,
                max_waiting_tokens=_NO_LIMIT,
                threads=options.threads,
            )
        )
        servicer = (await exits.enter_async_context(service)).servicer
        status = await servicer.GetStatus(attention_pb2.GetStatusRequest(), LocalContext())
        pool = local_pool(servicer, status)
        exits.push_async_callback(pool.stop)
        encoder = PromptEncoder(model, LIMITS)
        exits.callback(encoder.close)
        gateway = Gateway(
            config=GatewayConfig(model=options.model, attention=("127.0.0.1:1",)),
            limits=LIMITS,
            model=model,
            pool=pool,
            encoder=encoder,
            metrics=GatewayMetrics(CollectorRegistry()),
            status_line=StatusLine(),
            slots=KeySlots(LIMITS.concurrent_per_key),
        )
        return InProcessBackend(gateway, options, exits.pop_all())


def _end(
    index: int,
    finished: attention_pb2.Finished,
    state: StreamState,
    text: OutputText,
    params: SamplingParams,
) -> Delta:
    """The last delta: what was held back, why it ended, what it cost."""
    delta = Delta(index, text.finish(), num_cached_tokens=state.num_cached_tokens)
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
    """Text cut at the control tokens' own texts, longest first."""
    pattern = "|".join(re.escape(marker) for marker in sorted(markers, key=len, reverse=True))
    parts = re.split(f"({pattern})", text)
    return [Segment(part, is_marker=i % 2 == 1) for i, part in enumerate(parts) if part]


@contextlib.contextmanager
def _python_errors() -> Iterator[None]:
    """ApiErrors as what callers of a library expect."""
    try:
        yield
    except ApiError as error:
        raise as_python_error(error) from None
