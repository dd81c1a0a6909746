"""What do `LLM.generate` and `LLM.chat` return? The names are those that vLLM's users know."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token's log-probability in the raw distribution."""

    logprob: float
    rank: int | None = None
    """1 is the most likely; None when the token is not among those that were asked for."""
    decoded_token: str | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One answer to one prompt; `n` of them make a RequestOutput."""

    index: int
    text: str
    token_ids: list[int]
    """Everything generated, the stop token included."""
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    """For each token, the one chosen and the most likely ones, by token id."""
    finish_reason: str | None = None
    """`stop` or `length`; None while it is growing."""
    stop_reason: int | str | None = None
    """The stop string or stop token id that ended it; None for the model's own end token."""
    lora_request: None = None
    message: dict[str, Any] | None = None
    """After `chat`: the assistant message with thinking, content and tool calls apart."""

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """When things happened; `time.time()` seconds unless it says otherwise."""

    arrival_time: float
    first_token_time: float | None = None
    last_token_time: float | None = None
    finished_time: float | None = None
    first_token_latency: float | None = None
    """Seconds from arrival to the first token."""
    num_generation_tokens: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    """Where the time went, in milliseconds; of several answers, the slowest one's."""


@dataclass(slots=True)
class RequestOutput:
    """One prompt and what became of it."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestMetrics
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int | None = None
    """Prompt tokens taken from the prefix cache; known at the end."""
    lora_request: None = None
    encoder_prompt: None = None
    encoder_prompt_token_ids: None = None
    kv_transfer_params: None = None
