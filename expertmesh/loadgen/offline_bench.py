"""How does `expertmesh bench offline` run? It times the engine of `LLM` in this process."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expertmesh.loadgen.record import Record
from expertmesh.loadgen.serve_bench import WorkloadOptions
from expertmesh.loadgen.summary import summarise
from expertmesh.loadgen.workload import WORDS, Conversation, random_conversations
from expertmesh.offline.backend import Backend, Delta, Job
from expertmesh.offline.connect import open_backend
from expertmesh.offline.prompts import GivenPrompt
from expertmesh.offline.run import prepare_chats, prepare_prompts, run_jobs
from expertmesh.offline.sampling_params import SamplingParams

if TYPE_CHECKING:
    from expertmesh.offline.in_process import EngineOptions


@dataclass(frozen=True, kw_only=True)
class OfflineOptions:
    """The options of `expertmesh bench offline`."""

    engine: "EngineOptions"
    workload: WorkloadOptions
    ignore_eos: bool = False
    temperature: float = 0.0
    warmup: int = 1
    percentiles: tuple[float, ...] = (99.0,)

    def __post_init__(self) -> None:
        if self.workload.multi_turn or self.workload.shape.turns > 1:
            raise ValueError("--turns and --multi-turn: only bench serve plays conversations")
        if self.warmup < 0:
            raise ValueError(f"--warmup: at least 0, got {self.warmup}")


async def run_offline(
    options: OfflineOptions,
    records: list[Record],
    *,
    on_ready: Callable[[int], None] = lambda total: None,
    on_done: Callable[[Record], None] = lambda record: None,
) -> None:
    """Fill `records`. Raises ValueError; cancel it to stop early."""
    workload = options.workload
    backend = await open_backend(options.engine, None, None, None, None)
    try:
        ids: list[int] = []
        if workload.dataset is None:
            words = await backend.encode(" ".join(WORDS), control_tokens=False)
            ids = sorted(set(words))
        jobs = await _jobs(backend, options, workload.conversations(ids))
        # Other prompts, so that the measured ones are not in the prefix cache.
        others = random_conversations(workload.shape, options.warmup, workload.seed + 1, ids)
        await _run(backend, await _jobs(backend, options, others), {}, lambda record: None)
        on_ready(len(jobs))
        by_id = {job.request_id: Record(prompt_tokens=len(job.prompt_ids)) for job in jobs}
        try:
            await _run(backend, jobs, by_id, on_done)
        finally:
            started = [record for record in by_id.values() if record.started_s]
            for record, finished in ((r, bool(r.timings)) for r in started):
                record.cancelled = not finished
            records += started
    finally:
        await backend.close()


def offline_result(options: OfflineOptions, records: Sequence[Record]) -> dict[str, Any]:
    """The settings and the summary."""
    return {
        "bench": "offline",
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "model_id": options.engine.model.absolute().name,
        "num_prompts": options.workload.num_prompts,
        "max_num_seqs": options.engine.max_running,
        "seed": options.workload.seed,
        **summarise(records, percentiles=options.percentiles),
    }


async def _jobs(
    backend: Backend, options: OfflineOptions, conversations: Sequence[Conversation]
) -> list[Job]:
    params = [
        SamplingParams(
            temperature=options.temperature,
            max_tokens=conversation.turns[0].output_len,
            ignore_eos=options.ignore_eos,
        )
        for conversation in conversations
    ]
    seed = options.workload.seed
    numbered = [(str(index), seed + index) for index in range(len(conversations))]
    if options.workload.is_chat:
        chats = [_messages(conversation) for conversation in conversations]
        return await prepare_chats(backend, chats, params, numbered, ())
    given = [
        GivenPrompt(name=f"prompt {index}", text=turn.text or None, ids=list(turn.ids) or None)
        for index, turn in enumerate(conversation.turns[0] for conversation in conversations)
    ]
    return await prepare_prompts(backend, given, params, numbered, control_tokens=False)


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": conversation.system}] if conversation.system else []
    return [*system, {"role": "user", "content": conversation.turns[0].text}]


async def _run(
    backend: Backend,
    jobs: Sequence[Job],
    by_id: dict[str, Record],
    on_done: Callable[[Record], None],
) -> None:
    def on_open(job: Job) -> None:
        if job.request_id in by_id:
            by_id[job.request_id].started_s = time.perf_counter()

    def on_delta(job: Job, delta: Delta) -> None:
        record = by_id.get(job.request_id)
        if record is None:
            return
        record.arrive(time.perf_counter(), record.output_tokens + len(delta.token_ids))
        if delta.finish_reason is not None:
            record.cached_tokens = delta.num_cached_tokens
            record.timings = delta.timings
            on_done(record)

    stream = run_jobs(
        backend, jobs, backend.default_parallel, whole=True, on_open=on_open, on_delta=on_delta
    )
    async with contextlib.aclosing(stream):
        async for _ in stream:
            pass
