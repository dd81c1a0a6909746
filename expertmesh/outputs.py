"""What do `LLM.generate` and `LLM.chat` return? Classes and fields are named as in vLLM."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token's log-probability in the raw distribution."""

    logprob: float
    rank: int | None = None
    """1 is the most likely; None if the token is not among the requested most likely ones."""
    decoded_token: str | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One answer to a prompt; a RequestOutput has `n` of them."""

    index: int
    text: str
    token_ids: list[int]
    """Everything generated, the stop token included."""
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    """For each position, the chosen token and the most likely ones, by token id."""
    finish_reason: str | None = None
    """`stop` or `length`; None while the answer is growing."""
    stop_reason: int | str | None = None
    """The stop string or stop token id that ended it; None for the model's own end token."""
    lora_request: None = None
    message: dict[str, Any] | None = None
    """After `chat`: the assistant's message, with separate thinking, content and tool calls."""

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """When things happened, as `time.time()` unless stated otherwise."""

    arrival_time: float
    first_token_time: float | None = None
    last_token_time: float | None = None
    finished_time: float | None = None
    first_token_latency: float | None = None
    """Seconds from arrival to the first token."""
    num_generation_tokens: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    """Where the time went, in milliseconds; with several answers, for the slowest one."""


@dataclass(slots=True)
class RequestOutput:
    """One prompt and its answers."""

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
