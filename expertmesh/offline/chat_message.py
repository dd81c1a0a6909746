"""What is thinking, answer and tool call in a finished chat answer? An OpenAI message."""

from collections.abc import Sequence
from typing import Any

from gateway.replies import new_id
from minimax_m2.chat.added_tokens import THINK_END, THINK_START
from minimax_m2.chat.events import (
    ContentDelta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
)
from minimax_m2.chat.parser import OutputParser


def as_message(text: str, prompt: str, tools: Sequence[Any]) -> dict[str, Any]:
    """The assistant message to append to the conversation.

    `reasoning_content` and `tool_calls` are in it when there are any.
    """
    opened = prompt.rpartition(THINK_START)[2]
    parser = OutputParser(
        tools=list(tools),
        starts_in_reasoning=THINK_START in prompt and THINK_END not in opened,
        parallel_tool_calls=True,
    )
    reasoning, content = "", ""
    calls: list[dict[str, Any]] = []
    for event in (*parser.feed(text), *parser.finish()):
        if isinstance(event, ReasoningDelta):
            reasoning += event.text
        elif isinstance(event, ContentDelta):
            content += event.text
        elif isinstance(event, ToolCallStart):
            function = {"name": event.name, "arguments": ""}
            calls.append({"id": new_id("call_"), "type": "function", "function": function})
        elif isinstance(event, ToolCallArguments):
            calls[event.index]["function"]["arguments"] += event.fragment
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message
