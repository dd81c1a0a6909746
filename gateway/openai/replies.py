"""What do all of this API's answers have in common? Ids, usage, timings."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.generate.choice_streams import Choice, Finish
from gateway.openai.models import StreamOptions
from protos import attention_pb2

DONE = b"data: [DONE]\n\n"
FINISH_REASONS = {
    None: None,
    Finish.STOP: "stop",
    Finish.LENGTH: "length",
    Finish.CALLS: "tool_calls",
}


@dataclass(kw_only=True)
class ReplyHead:
    """What every chunk repeats, and the sums over all choices."""

    id: str
    object: str
    model: str
    choices: Sequence[Choice]
    prompts: int
    """Choices of one prompt count its tokens once."""
    tokenise_s: float
    with_timings: bool
    stream_options: StreamOptions
    fingerprint: str = ""
    """`system_fingerprint`; empty: not told."""
    created: int = field(default_factory=lambda: int(time.time()))

    def fields(self) -> dict[str, Any]:
        told = {"system_fingerprint": self.fingerprint} if self.fingerprint else {}
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            **told,
        }

    def event(self, choice: dict[str, Any]) -> bytes:
        """One chunk with one choice."""
        chunk = self.fields()
        chunk["choices"] = [choice]
        if self.stream_options.continuous_usage_stats:
            chunk["usage"] = self.usage()
        elif self.stream_options.include_usage:
            chunk["usage"] = None
        return sse(chunk)

    def closing(self) -> bytes:
        extra: dict[str, Any] = {}
        if self.stream_options.include_usage:
            extra["usage"] = self.usage()
        if self.with_timings:
            extra["expertmesh_timings"] = self.timings()
        if not extra:
            return DONE
        return sse({**self.fields(), "choices": [], **extra}) + DONE

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage object as it stands now."""
        per_prompt = max(1, len(self.choices) // self.prompts)
        firsts = [self.choices[i] for i in range(0, len(self.choices), per_prompt)]
        prompt = sum(choice.state.num_prompt_tokens for choice in firsts)
        completion = sum(choice.state.num_generated_tokens for choice in self.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {
                "cached_tokens": sum(choice.state.num_cached_tokens for choice in firsts)
            },
            "completion_tokens_details": {
                "reasoning_tokens": sum(choice.text.reasoning_tokens for choice in self.choices)
            },
        }

    def timings(self) -> dict[str, Any]:
        """Milliseconds by part; of several choices, those of the slowest."""
        known = [c.state.timings for c in self.choices if c.state.timings is not None]
        timings: dict[str, Any] = {}
        if known:
            slowest = max(known, key=lambda one: one.total_ms)
            for descriptor in attention_pb2.Timings.DESCRIPTOR.fields:
                timings[descriptor.name] = round(getattr(slowest, descriptor.name), 3)
        timings["tokenise_ms"] = round(self.tokenise_s * 1e3, 3)
        timings["detokenise_ms"] = round(sum(c.text_s for c in self.choices) * 1e3, 3)
        return timings


def sse(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)
