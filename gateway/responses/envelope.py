"""What does a response say besides its items? What was asked, as this server understood it."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from gateway.errors import bad_field
from gateway.responses.earlier import NOTHING, Earlier
from gateway.responses.fields import (
    MOST_KEY_CHARS,
    MOST_METADATA,
    MOST_VALUE_CHARS,
    ResponsesRequest,
)
from gateway.responses.tools import Tools
from moe_model.config import GenerationDefaults


def response_head(
    fields: ResponsesRequest,
    tools: Tools,
    defaults: GenerationDefaults,
    warnings: Sequence[str],
    *,
    is_kept: bool = False,
    earlier: Earlier = NOTHING,
) -> dict[str, Any]:
    """All members but those that come with the answer."""
    given = {name: value for name, value in vars(fields).items() if value is not None}
    shown = {name: given.get(name) for name in ("user", "prompt_cache_key", "safety_identifier")}
    text = fields.text.format if fields.text is not None else None
    reasoning = fields.reasoning or {}
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": bool(fields.background),
        "conversation": {"id": earlier.conversation_id} if earlier.conversation_id else None,
        "error": None,
        "incomplete_details": None,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "max_tool_calls": None,
        "metadata": fields.metadata or {},
        "model": fields.model,
        "output": [],
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "previous_response_id": earlier.parent_id,
        "reasoning": {"effort": reasoning.get("effort"), "summary": None},
        "service_tier": "default",
        "store": is_kept,
        "temperature": given.get("temperature", defaults.temperature),
        "text": {"format": text or {"type": "text"}},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": list(tools.served),
        "top_logprobs": fields.top_logprobs or 0,
        "top_p": given.get("top_p", defaults.top_p),
        "truncation": "disabled",
        "usage": None,
        **shown,
        "warnings": list(warnings),
    }


def check_metadata(metadata: dict[str, Any] | None) -> None:
    """Raises RequestError naming the field."""
    if metadata is None:
        return
    if len(metadata) > MOST_METADATA:
        raise bad_field("metadata", f"at most {MOST_METADATA} entries, got {len(metadata)}")
    for key, value in metadata.items():
        if len(key) > MOST_KEY_CHARS:
            raise bad_field("metadata", f"keys have at most {MOST_KEY_CHARS} characters")
        if not isinstance(value, str) or len(value) > MOST_VALUE_CHARS:
            raise bad_field(
                f"metadata.{key}", f"must be a string of at most {MOST_VALUE_CHARS} characters"
            )
