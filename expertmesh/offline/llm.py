"""`LLM`: generate and chat from a program, in this process or over a running cluster.

    from expertmesh import LLM, SamplingParams

    llm = LLM(model="path/to/checkpoint")           # an engine in this process, no servers
    llm = LLM(base_url="http://127.0.0.1:8000")     # a running cluster
    outputs = llm.generate(["Hello"], SamplingParams(max_tokens=32))

The interface is vLLM's; docs/offline.md lists the differences.
"""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from expertmesh.offline.arguments import (
    ENGINE_ONLY,
    NOT_APPLICABLE,
    note_ignored,
    note_unknown,
    with_argument_names,
)
from expertmesh.offline.backend import Job
from expertmesh.offline.connect import engine_options, open_backend
from expertmesh.offline.loop_thread import LoopThread
from expertmesh.offline.metrics import Metric
from expertmesh.offline.opened import Opened
from expertmesh.offline.progress_bar import BatchProgress, wants_bar
from expertmesh.offline.run import check_chat_fields, run_jobs
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.offline.tokenizer_view import TokenizerView
from expertmesh.outputs import RequestOutput

Params = SamplingParams | Sequence[SamplingParams] | None


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
        load: str | None = None,
        dtype: str | None = None,
        expert_dtype: str | None = None,
        linear_dtype: str | None = None,
        device: str | None = None,
        gpu_memory_utilization: float | None = None,
        seed: int | None = 0,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        kv_memory: str | int | None = None,
        kv_cache_memory_bytes: int | None = None,
        kv_host_memory: str | int | None = None,
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
        load: "random:SEED" or "random:SEED,skew=X" makes weights up from a seed; the folder then
            needs only config.json and the tokenizer.
        dtype: auto, f32 or bf16 (also float32, bfloat16).
        expert_dtype, linear_dtype: formats of the experts' weights and of attention's and the LM
            head's: auto (the compute dtype), bf16, fp8, int8, int4, int4_g128.
        device: auto (a GPU that takes the model, else the CPU), cpu, cuda or cuda:N.
        gpu_memory_utilization: the share of a GPU's memory to use (0.9).
        seed: seeds the requests that have none, so that runs repeat; None: different each time.
        max_num_seqs: sequences in one step. max_num_batched_tokens: rows in one step.
        kv_memory: size of the KV cache, for example "2GiB" (or kv_cache_memory_bytes). Without it
            512 MiB on a CPU, and all that is left to it on a GPU.
        kv_host_memory: host memory, for example "8GiB", for what the prefix cache has to give up;
            it is read back where that is cheaper than computing it again. Without it, none.
        generation_config: what calls without sampling parameters use: "auto", the checkpoint's
            defaults; "vllm", SamplingParams().
        parse_control_tokens: turn the text of control tokens in string prompts into control
            tokens. Leave it off if prompts contain untrusted text.
        Every other argument has no effect: there is a log line for each.
        """
        given = locals()
        ignored = {name: value for name, value in unknown.items() if name in NOT_APPLICABLE}
        note_ignored(ignored, NOT_APPLICABLE, "LLM")
        known = [*inspect.signature(LLM).parameters, *NOT_APPLICABLE]
        note_unknown(unknown.keys() - ignored.keys(), known, "LLM")
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
                load=load,
                dtype=dtype,
                expert_dtype=expert_dtype,
                linear_dtype=linear_dtype,
                device=device,
                gpu_memory=gpu_memory_utilization,
                max_model_len=max_model_len,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                kv_memory=kv_memory if kv_memory is not None else kv_cache_memory_bytes,
                kv_host_memory=kv_host_memory,
                threads=threads,
            )
        if generation_config not in ("auto", "vllm"):
            raise ValueError(f"generation_config: auto or vllm, got {generation_config!r}")
        loop = LoopThread("expertmesh-llm")
        try:
            backend = loop.run(open_backend(options, base_url, cluster, api_key, model))
        except BaseException as error:
            loop.close()
            if isinstance(error, ValueError):
                raise ValueError(with_argument_names(str(error))) from None
            raise
        use_vllms = generation_config == "vllm"
        self.opened = Opened(
            loop,
            backend,
            default_params=SamplingParams() if use_vllms else backend.default_params,
            parallel=max_num_seqs if remote and max_num_seqs else backend.default_parallel,
            seed=seed,
            control_tokens=parse_control_tokens,
        )

    @overload
    def generate(
        self,
        prompts: Any,
        sampling_params: Params = None,
        use_tqdm: Any = None,
        *,
        stream: Literal[False] = False,
        **unknown: Any,
    ) -> list[RequestOutput]: ...

    @overload
    def generate(
        self,
        prompts: Any,
        sampling_params: Params = None,
        use_tqdm: Any = None,
        *,
        stream: Literal[True],
        **unknown: Any,
    ) -> Iterator[RequestOutput]: ...

    def generate(
        self,
        prompts: Any,
        sampling_params: Params = None,
        use_tqdm: Any = None,
        *,
        stream: bool = False,
        **unknown: Any,
    ) -> list[RequestOutput] | Iterator[RequestOutput]:
        """Answer all prompts, in batches; the outputs are in the prompts' order.

        prompts: a string, {"prompt": text}, {"prompt_token_ids": ids}, a list of ids, or a list
            of these. sampling_params: one for all, or one for each.
        use_tqdm: show a progress bar; None: if standard error is a terminal.
        stream: yield RequestOutputs as they grow instead, of all prompts as they come: what
            `generate_stream` yields. Each holds the whole text so far, unless its parameters'
            output_kind says otherwise.
        Raises ValueError for a bad request, before anything runs; else GenerationFailed.
        """
        if stream:
            return self.generate_stream(prompts, sampling_params, **unknown)
        return self._batch(self._prompt_jobs(prompts, sampling_params, unknown), use_tqdm)

    def generate_stream(
        self,
        prompts: Any,
        sampling_params: Params = None,
        **unknown: Any,
    ) -> Iterator[RequestOutput]:
        """Outputs as they grow, each with its prompt's `request_id`. Leaving early cancels.

        Each request's `sampling_params.output_kind` decides what its outputs hold: CUMULATIVE,
        DELTA or FINAL_ONLY.
        """
        return self.opened.iterate(self._prompt_jobs(prompts, sampling_params, unknown))

    @overload
    def chat(
        self,
        messages: Any,
        sampling_params: Params = None,
        use_tqdm: Any = None,
        *,
        tools: Sequence[Any] | None = None,
        stream: Literal[False] = False,
        **unknown: Any,
    ) -> list[RequestOutput]: ...

    @overload
    def chat(
        self,
        messages: Any,
        sampling_params: Params = None,
        use_tqdm: Any = None,
        *,
        tools: Sequence[Any] | None = None,
        stream: Literal[True],
        **unknown: Any,
    ) -> Iterator[RequestOutput]: ...

    def chat(
        self,
        messages: Any,
        sampling_params: Params = None,
        use_tqdm: Any = None,
        *,
        tools: Sequence[Any] | None = None,
        stream: bool = False,
        **unknown: Any,
    ) -> list[RequestOutput] | Iterator[RequestOutput]:
        """Answer a conversation or a list of them, with OpenAI's messages and tools.

        `outputs[i].text` is the raw text, including thinking; `outputs[i].message` is the parsed
        assistant message, ready to be appended to the conversation.
        stream: yield RequestOutputs as they grow instead, as `generate` does; the last one of a
            conversation has the message.
        Raises ValueError for arguments that would change the chat template.
        """
        if stream:
            return self.chat_stream(messages, sampling_params, tools=tools, **unknown)
        return self._batch(self._chat_jobs(messages, sampling_params, tools, unknown), use_tqdm)

    def chat_stream(
        self,
        messages: Any,
        sampling_params: Params = None,
        *,
        tools: Sequence[Any] | None = None,
        **unknown: Any,
    ) -> Iterator[RequestOutput]:
        """Like `generate_stream`; `message` is set at the end."""
        return self.opened.iterate(self._chat_jobs(messages, sampling_params, tools, unknown))

    def get_tokenizer(self) -> TokenizerView:
        """Encode, decode, the chat template, and the ids that begin and end texts."""
        return TokenizerView(self.opened.loop, self.opened.backend)

    def get_metrics(self) -> list[Metric]:
        """What the engine counted and measured, or over HTTP the gateway (docs/metrics.md)."""
        return self.opened.loop.run(self.opened.backend.metrics())

    def reset_prefix_cache(self) -> bool:
        """Forget what was computed for earlier prompts; False, and nothing, while a request runs.

        Raises NotImplementedError over HTTP, where other clients use the cache too.
        """
        return self.opened.loop.run(self.opened.backend.reset_prefix_cache())

    def get_default_sampling_params(self) -> SamplingParams:
        """The parameters of calls that give none."""
        return self.opened.default_params.clone()

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and output together."""
        return self.opened.backend.max_model_len

    def close(self) -> None:
        """Cancel running requests, free the engine, end its threads. May be called twice."""
        self.opened.close()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prompt_jobs(
        self, prompts: Any, sampling_params: Params, unknown: dict[str, Any]
    ) -> list[Job]:
        self.opened.check_call(unknown, "generate")
        return self.opened.loop.run(self.opened.generate_jobs(prompts, sampling_params))

    def _chat_jobs(
        self,
        messages: Any,
        sampling_params: Params,
        tools: Sequence[Any] | None,
        unknown: dict[str, Any],
    ) -> list[Job]:
        self.opened.check_call(check_chat_fields(unknown), "chat")
        return self.opened.loop.run(self.opened.chat_jobs(messages, sampling_params, tools))

    def _batch(self, jobs: list[Job], use_tqdm: Any) -> list[RequestOutput]:
        places = {job.request_id: place for place, job in enumerate(jobs)}
        outputs: list[RequestOutput | None] = [None] * len(jobs)

        async def collect() -> None:
            with BatchProgress(len(jobs), shown=wants_bar(use_tqdm)) as progress:
                stream = run_jobs(
                    self.opened.backend,
                    jobs,
                    self.opened.parallel,
                    whole=True,
                    on_delta=lambda job, delta: progress.tokens(len(delta.token_ids)),
                )
                async with contextlib.aclosing(stream):
                    async for output in stream:
                        progress.prompt_done(len(output.prompt_token_ids))
                        outputs[places[output.request_id]] = output

        self.opened.loop.run(collect())
        return [output for output in outputs if output is not None]
