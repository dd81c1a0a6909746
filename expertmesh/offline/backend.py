"""What does `LLM` need of whatever generates? Two kinds: an engine in this process, a cluster."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.outputs import Logprob


@dataclass(frozen=True, kw_only=True)
class Job:
    """One prompt, encoded, and how to answer it."""

    request_id: str
    prompt: str | None
    prompt_ids: list[int]
    params: SamplingParams
    seed: int
    """Of this request; its answers differ by their index."""
    tools: tuple[Any, ...] | None = None
    """None: no chat, the answer is plain text."""


@dataclass(slots=True)
class Delta:
    """What one event added to one answer."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    """With the first delta, when asked for: one entry for each prompt token, the first None."""
    num_cached_tokens: int | None = None
    timings: dict[str, float] = field(default_factory=dict)


class Backend(Protocol):
    """All methods belong to one event loop. Errors are ValueError or GenerationFailed."""

    max_model_len: int
    """Tokens of prompt and output together."""
    default_parallel: int
    """Requests worth having open at once."""
    default_params: SamplingParams
    marker_ids: Mapping[str, int]
    """Ids of the markers by their text; empty when a server does not tell them."""

    async def encode(self, text: str, *, control_tokens: bool) -> list[int]:
        """Ids of text; with `control_tokens`, markers in it become control tokens."""

    async def render(
        self, messages: list[Any], tools: Sequence[Any], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Ids of a conversation, the model's turn opened."""

    async def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, markers written out."""

    def stream(self, job: Job) -> AsyncGenerator[Delta, None]:
        """The answers as they grow; closing it cancels them."""

    async def close(self) -> None:
        """Leave nothing running."""
