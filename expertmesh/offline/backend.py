"""What does `LLM` need from a backend? There are two: an engine in this process, a cluster."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from expertmesh.offline.metrics import Metric
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.outputs import Logprob
from moe_model.families.family import ChatFormat


@dataclass(frozen=True, kw_only=True)
class Job:
    """One encoded prompt and how to answer it."""

    request_id: str
    prompt: str | None
    prompt_ids: list[int]
    params: SamplingParams
    seed: int
    """Seed of the request; each of its answers also depends on its index."""
    tools: tuple[Any, ...] | None = None
    """None: not a chat, the answer is plain text."""


@dataclass(slots=True)
class Delta:
    """What an event adds to one answer."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    """In the first delta, if requested: an entry for each prompt token, None for the first."""
    num_cached_tokens: int | None = None
    timings: dict[str, float] = field(default_factory=dict)


class Backend(Protocol):
    """All methods run on one event loop. They raise ValueError or GenerationFailed."""

    max_model_len: int
    """Most tokens of prompt and output together."""
    default_parallel: int
    """Requests worth having open at once."""
    default_params: SamplingParams
    chat_format: ChatFormat
    marker_ids: Mapping[str, int]
    """The markers' ids by their text; empty if the server does not list them."""
    special_ids: frozenset[int]
    """Ids that `skip_special_tokens` leaves out."""
    bos_token_id: int | None
    eos_token_id: int | None

    async def encode(self, text: str, *, control_tokens: bool) -> list[int]:
        """Ids of the text; with `control_tokens`, markers in it become control tokens."""

    async def render(
        self, messages: list[Any], tools: Sequence[Any], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Ids of a conversation, with the model's turn opened if `add_generation_prompt`."""

    async def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, including markers."""

    def stream(self, job: Job) -> AsyncGenerator[Delta, None]:
        """The answers as they grow; closing the generator cancels them."""

    async def metrics(self) -> list[Metric]:
        """What was counted and measured, as in Prometheus."""

    async def reset_prefix_cache(self) -> bool:
        """Whether it was reset. Raises NotImplementedError where it cannot be."""

    async def close(self) -> None:
        """Stop everything that runs."""
