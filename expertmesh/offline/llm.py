"""`LLM`: generate and chat from a program, in this process or over a running cluster.

    from expertmesh import LLM, SamplingParams

    llm = LLM(model="path/to/checkpoint")           # an engine in this process, no servers
    llm = LLM(base_url="http://127.0.0.1:8000")     # a running cluster
    outputs = llm.generate(["Hello"], SamplingParams(max_tokens=32))

The interface is vLLM's; docs/offline.md lists the differences.
"""

import contextlib
import itertools
import random
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from expertmesh.offline.arguments import (
    ENGINE_ONLY,
    NOT_APPLICABLE,
    check_known,
    note_ignored,
)
from expertmesh.offline.backend import Backend, Job
from expertmesh.offline.connect import engine_options, open_backend
from expertmesh.offline.loop_thread import LoopThread
from expertmesh.offline.progress_bar import BatchProgress, wants_bar
from expertmesh.offline.prompts import as_conversations, as_params, as_prompts
from expertmesh.offline.run import check_chat_fields, prepare_chats, prepare_prompts, run_jobs
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.offline.tokenizer_view import TokenizerView
from expertmesh.outputs import RequestOutput

_PER_CALL = {
    "lora_request": "adapters are not supported",
    "priority": "first come, first served",
    "mm_processor_kwargs": "text only",
    "chat_template_content_format": "the template takes every form",
    "tokenization_kwargs": "the tokenizer takes none",
}
"""Arguments of single calls that have no effect here -> why."""


class LLM:
    """A model to generate with. Close it, or use it in a `with` statement.

    Several threads may use the same one; their requests share the engine's batches.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        base_url: str | None = None,
        cluster: str | Path | bool | None = None,
        api_key: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        seed: int | None = 0,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        kv_memory: str | int | None = None,
        kv_cache_memory_bytes: int | None = None,
        threads: int | None = None,
        generation_config: str = "auto",
        skip_tokenizer_init: bool = False,
        parse_control_tokens: bool = False,
        **unknown: Any,
    ):
        """Load the model, or connect to a cluster. Raises ValueError naming the argument.

        model: checkpoint folder; None or "expertmesh-demo" is the bundled demonstration model.
            With a cluster, the served name (None: its first).
        base_url: URL of a running gateway. cluster: run folder of `expertmesh up --detach` or its
            cluster.json, True for the default folder. With either, nothing is loaded here.
        dtype: auto, f32 or bf16 (also float32, bfloat16). device: a torch device.
        seed: seeds the requests that have none, so that runs repeat; None: different each time.
        max_num_seqs: sequences in one step. max_num_batched_tokens: rows in one step.
        kv_memory: size of the KV cache, for example "2GiB" (or kv_cache_memory_bytes).
        generation_config: what calls without sampling parameters use: "auto", the checkpoint's
            defaults; "vllm", SamplingParams().
        parse_control_tokens: turn the text of control tokens in string prompts into control
            tokens. Leave it off if prompts contain untrusted text.
        Arguments of vLLM that have no effect here are accepted, with a log line for each; any other
        unknown argument is a TypeError.
        """
        check_known(unknown, LLM.__init__, "LLM")
        note_ignored(unknown, NOT_APPLICABLE, "LLM")
        given = locals()
        if skip_tokenizer_init:
            reason = {"skip_tokenizer_init": "the tokenizer is always loaded"}
            note_ignored(reason, reason, "LLM")
        remote = base_url is not None or cluster not in (None, False)
        if remote:
            extra = {name: 1 for name in ENGINE_ONLY if given[name] is not None}
            note_ignored(extra, dict.fromkeys(ENGINE_ONLY, "the cluster decides it"), "LLM")
            options = None
        else:
            options = engine_options(
                model,
                dtype=dtype,
                device=device,
                max_model_len=max_model_len,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                kv_memory=kv_memory if kv_memory is not None else kv_cache_memory_bytes,
                threads=threads,
            )
        if generation_config not in ("auto", "vllm"):
            raise ValueError(f"generation_config: auto or vllm, got {generation_config!r}")
        self._parse_control_tokens = parse_control_tokens
        self._loop = LoopThread("expertmesh-llm")
        try:
            self._backend: Backend = self._loop.run(
                open_backend(options, base_url, cluster, api_key, model)
            )
        except BaseException:
            self._loop.close()
            raise
        self._default_params = (
            SamplingParams() if generation_config == "vllm" else self._backend.default_params
        )
        self._parallel = max_num_seqs if remote and max_num_seqs else self._backend.default_parallel
        self._seeds = random.Random(seed)
        self._request_numbers = itertools.count()
        self._noted: set[str] = set()
        # Runs also when the interpreter exits, for scripts that never call close().
        self._finalizer = weakref.finalize(self, _close, self._loop, self._backend)

    def generate(
        self,
        prompts: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: Any = None,
        **unknown: Any,
    ) -> list[RequestOutput]:
        """Answer all prompts, in batches; the outputs are in the prompts' order.

        prompts: a string, {"prompt": text}, {"prompt_token_ids": ids}, a list of ids, or a list
            of these. sampling_params: one for all, or one for each.
        use_tqdm: show a progress bar; None: if standard error is a terminal.
        Raises ValueError for a bad request, before anything runs; else GenerationFailed.
        """
        self._ready(unknown, "generate")
        return self._batch(self._generate_jobs(prompts, sampling_params), use_tqdm)

    def generate_stream(
        self,
        prompts: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        **unknown: Any,
    ) -> Iterator[RequestOutput]:
        """Outputs as they grow, each with its prompt's `request_id`. Leaving early cancels.

        Each request's `sampling_params.output_kind` decides what its outputs hold: CUMULATIVE,
        DELTA or FINAL_ONLY.
        """
        self._ready(unknown, "generate_stream")
        return self._stream(self._generate_jobs(prompts, sampling_params))

    def chat(
        self,
        messages: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: Any = None,
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        **unknown: Any,
    ) -> list[RequestOutput]:
        """Answer a conversation or a list of them, with OpenAI's messages and tools.

        `outputs[i].text` is the raw text, including thinking; `outputs[i].message` is the parsed
        assistant message, ready to be appended to the conversation.
        """
        self._ready(unknown, "chat")
        check_chat_fields(
            chat_template=chat_template,
            chat_template_kwargs=chat_template_kwargs,
            continue_final_message=continue_final_message,
            add_generation_prompt=add_generation_prompt,
        )
        return self._batch(self._chat_jobs(messages, sampling_params, tools), use_tqdm)

    def chat_stream(
        self,
        messages: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Any] | None = None,
        **unknown: Any,
    ) -> Iterator[RequestOutput]:
        """Like `generate_stream`; `message` is set at the end."""
        self._ready(unknown, "chat_stream")
        return self._stream(self._chat_jobs(messages, sampling_params, tools))

    def get_tokenizer(self) -> TokenizerView:
        return TokenizerView(self._loop, self._backend)

    def get_default_sampling_params(self) -> SamplingParams:
        """The parameters of calls that give none."""
        return self._default_params.clone()

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and output together."""
        return self._backend.max_model_len

    def close(self) -> None:
        """Cancel running requests, free the engine, end its threads. May be called twice."""
        self._finalizer()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ready(self, arguments: dict[str, Any], where: str) -> None:
        if not self._finalizer.alive:
            raise RuntimeError("this LLM is closed")
        for name, value in arguments.items():
            if name not in _PER_CALL:
                raise TypeError(f"LLM.{where} has no argument {name!r}")
            if value is not None and name not in self._noted:
                self._noted.add(name)
                note_ignored({name: value}, _PER_CALL, where)

    def _generate_jobs(self, prompts: Any, params: Any) -> list[Job]:
        given = as_prompts(prompts)
        each = as_params(params, len(given), self._default_params)
        return self._loop.run(
            prepare_prompts(
                self._backend,
                given,
                each,
                self._numbered(each),
                control_tokens=self._parse_control_tokens,
            )
        )

    def _chat_jobs(self, messages: Any, params: Any, tools: Sequence[Any] | None) -> list[Job]:
        conversations = as_conversations(messages)
        each = as_params(params, len(conversations), self._default_params)
        numbered = self._numbered(each)
        return self._loop.run(
            prepare_chats(self._backend, conversations, each, numbered, tools or ())
        )

    def _numbered(self, params: Sequence[SamplingParams]) -> list[tuple[str, int]]:
        """(request id, seed) of each request."""
        return [
            (
                str(next(self._request_numbers)),
                one.seed if one.seed is not None else self._seeds.getrandbits(63),
            )
            for one in params
        ]

    def _batch(self, jobs: list[Job], use_tqdm: Any) -> list[RequestOutput]:
        places = {job.request_id: place for place, job in enumerate(jobs)}
        outputs: list[RequestOutput | None] = [None] * len(jobs)

        async def collect() -> None:
            with BatchProgress(len(jobs), shown=wants_bar(use_tqdm)) as progress:
                stream = run_jobs(
                    self._backend,
                    jobs,
                    self._parallel,
                    whole=True,
                    on_delta=lambda job, delta: progress.tokens(len(delta.token_ids)),
                )
                async with contextlib.aclosing(stream):
                    async for output in stream:
                        progress.prompt_done(len(output.prompt_token_ids))
                        outputs[places[output.request_id]] = output

        self._loop.run(collect())
        return [output for output in outputs if output is not None]

    def _stream(self, jobs: list[Job]) -> Iterator[RequestOutput]:
        return self._loop.iterate(run_jobs(self._backend, jobs, self._parallel))


def _close(loop: LoopThread, backend: Backend) -> None:
    if loop.alive:
        loop.cancel_all()  # first, so that no request sees the engine close
        loop.run(backend.close())
        loop.close()
