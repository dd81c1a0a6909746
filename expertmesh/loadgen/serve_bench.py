"""How does `expertmesh bench serve` run? Probe the server, warm up, apply the load, summarise."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expertmesh.clients.sse import Server
from expertmesh.loadgen.drive import drive, play, probe
from expertmesh.loadgen.record import Record
from expertmesh.loadgen.summary import summarise
from expertmesh.loadgen.target import Target, find_model, word_ids
from expertmesh.loadgen.workload import (
    Conversation,
    RandomShape,
    file_conversations,
    random_conversations,
)

DEFAULT_CONCURRENCY = 32
"""Below the limit that servers set for one client (the gateway: 64)."""


@dataclass(frozen=True, kw_only=True)
class WorkloadOptions:
    """The prompts: random ones, or those of `dataset`."""

    num_prompts: int = 100
    shape: RandomShape = field(default_factory=RandomShape)
    dataset: Path | None = None
    output_len: int = 128
    """For dataset entries without their own."""
    multi_turn: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_prompts < 1 or self.output_len < 1:
            raise ValueError("--num-prompts and --output-len: at least 1")

    @property
    def is_chat(self) -> bool:
        """Whether the chat endpoint is needed; single random prompts are plain completions."""
        return self.dataset is not None or self.shape.turns > 1

    def conversations(self, ids: Sequence[int] = ()) -> list[Conversation]:
        """The prompts as conversations. Raises ValueError for a file that cannot be used."""
        if self.dataset is None:
            return random_conversations(self.shape, self.num_prompts, self.seed, ids)
        return file_conversations(
            self.dataset,
            self.num_prompts,
            self.seed,
            output_len=self.output_len,
            multi_turn=self.multi_turn,
        )


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of `expertmesh bench serve`."""

    base_url: str
    workload: WorkloadOptions
    model: str | None = None
    api_key: str | None = None
    endpoint: str = "auto"
    rate: float = float("inf")
    burstiness: float = 1.0
    max_concurrency: int | None = None
    """0: no limit. None: no limit with a rate, else DEFAULT_CONCURRENCY."""
    warmup: int = 0
    ignore_eos: bool = False
    temperature: float | None = 0.0
    percentiles: tuple[float, ...] = (99.0,)
    goodput: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.endpoint not in ("auto", "chat", "completions"):
            raise ValueError(f"--endpoint: auto, chat or completions, got {self.endpoint!r}")
        if self.max_concurrency is not None and self.max_concurrency < 0:
            raise ValueError(f"--max-concurrency: at least 0, got {self.max_concurrency}")
        if self.warmup < 0:
            raise ValueError(f"--warmup: at least 0, got {self.warmup}")

    @property
    def concurrency(self) -> int | None:
        """The limit in effect; None: no limit."""
        if self.max_concurrency is None:
            return DEFAULT_CONCURRENCY if math.isinf(self.rate) else None
        return self.max_concurrency or None


async def run_serve(
    options: ServeOptions,
    records: list[Record],
    *,
    on_ready: Callable[[str, int], None] = lambda model, total: None,
    on_done: Callable[[Record], None] = lambda record: None,
) -> str:
    """Fill `records`; returns the model's name. Raises ValueError. Cancel it to stop early."""
    server = Server.parse(options.base_url)
    workload = options.workload
    chat = workload.is_chat if options.endpoint == "auto" else options.endpoint == "chat"
    model = options.model or await find_model(server, options.api_key)
    ids = [] if chat else await word_ids(server, model, options.api_key)
    conversations = workload.conversations(ids)
    target = Target(
        server=server,
        model=model,
        api_key=options.api_key,
        ignore_eos=options.ignore_eos,
        temperature=options.temperature,
        seed=workload.seed,
    )
    # Other prompts, so that the measured ones are not in the prefix cache.
    others = random_conversations(workload.shape, 1 + options.warmup, workload.seed + 1, ids)
    target = await probe(target, others[0], chat=chat)
    await asyncio.gather(*(play(target, one, [], chat=chat) for one in others[1:]))
    on_ready(model, sum(len(one.turns) for one in conversations))
    await drive(
        target,
        conversations,
        records,
        rate=options.rate,
        burstiness=options.burstiness,
        max_concurrency=options.concurrency,
        seed=workload.seed,
        chat=chat,
        on_done=on_done,
    )
    return model


def serve_result(options: ServeOptions, model: str, records: Sequence[Record]) -> dict[str, Any]:
    """The settings and the summary."""
    return {
        "bench": "serve",
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "model_id": model,
        "num_prompts": options.workload.num_prompts,
        "request_rate": options.rate,
        "burstiness": options.burstiness,
        "max_concurrency": options.concurrency,
        "seed": options.workload.seed,
        **summarise(records, percentiles=options.percentiles, goodput=options.goodput),
        "errors": sorted({record.error for record in records if record.error is not None})[:10],
    }
