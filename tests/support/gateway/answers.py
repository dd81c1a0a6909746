"""Token ids that a model of M2's kind could emit, and readers for what comes back."""

import json
from typing import Any

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.model import END_OF_THINK, END_OF_TOOL_CALL, TOOL_CALL

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
}


def thinking_answer(tokenizer: Tokenizer, thinking: str, answer: str) -> list[int]:
    """Ids of thinking, its end and an answer."""
    return [
        *tokenizer.encode_text(thinking + "\n"),
        END_OF_THINK,
        *tokenizer.encode_text("\n\n" + answer),
    ]


def invoke(name: str, **arguments: str) -> str:
    parameters = "".join(
        f'<parameter name="{key}">{value}</parameter>\n' for key, value in arguments.items()
    )
    return f'<invoke name="{name}">\n{parameters}</invoke>\n'


def tool_answer(tokenizer: Tokenizer, *invokes: str, answer: str = "") -> list[int]:
    """Ids of a thought and one block of tool calls."""
    return [
        *thinking_answer(tokenizer, "call", answer),
        *tokenizer.encode_text("\n"),
        TOOL_CALL,
        *tokenizer.encode_text("\n" + "".join(invokes)),
        END_OF_TOOL_CALL,
    ]


def events_of(text: str) -> list[dict[str, Any]]:
    """The JSON of a stream's data events, without [DONE] and comments."""
    blocks = [block for block in text.split("\n\n") if block.startswith("data: ")]
    return [json.loads(block[6:]) for block in blocks if block != "data: [DONE]"]


def ends_with_done(text: str) -> bool:
    return text.endswith("data: [DONE]\n\n") and text.count("[DONE]") == 1
