"""What is thinking, answer and tool call in a finished chat answer? An OpenAI message."""

import re
import secrets
from collections.abc import Mapping
from typing import Any

from expertmesh.offline.backend import Backend, Job
from expertmesh.outputs import CompletionOutput
from moe_model.chat.events import (
    ContentDelta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
)
from moe_model.text.segments import Segment


async def message_of(backend: Backend, job: Job, choice: CompletionOutput) -> dict[str, Any]:
    """The assistant message to append to the conversation.

    `reasoning_content` and `tool_calls` are in it when there are any. The arguments of a call that
    was cut off are no JSON.
    """
    chat_format, ids = backend.chat_format, backend.marker_ids
    tag_of_id = {ids[tag]: tag for tag in chat_format.output_tags if tag in ids}
    parser = chat_format.make_parser(
        tools=list(job.tools or ()),
        starts_in_reasoning=chat_format.opens_thinking(job.prompt_ids, ids),
        parallel_tool_calls=True,
    )
    events = []
    for segment in await _segments(backend, choice, tag_of_id):
        events += (parser.feed_marker if segment.is_marker else parser.feed)(segment.text)
    is_cut = choice.finish_reason == "length" or choice.stop_reason is not None
    events += parser.finish(is_cut=is_cut)
    reasoning, content = "", ""
    calls: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, ReasoningDelta):
            reasoning += event.text
        elif isinstance(event, ContentDelta):
            content += event.text
        elif isinstance(event, ToolCallStart):
            function = {"name": event.name, "arguments": ""}
            calls.append(
                {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
            )
        elif isinstance(event, ToolCallArguments):
            calls[event.index]["function"]["arguments"] += event.fragment
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


async def _segments(
    backend: Backend, choice: CompletionOutput, tag_of_id: Mapping[int, str]
) -> list[Segment]:
    """The answer's text, told apart from the marker tokens in it by the ids."""
    segments: list[Segment] = []
    stretch: list[int] = []
    for token_id in [*choice.token_ids, None]:
        tag = tag_of_id.get(token_id) if token_id is not None else None
        if token_id is not None and tag is None:
            stretch.append(token_id)
            continue
        if stretch:
            segments.append(Segment(await backend.decode(stretch), False))
            stretch = []
        if tag is not None:
            segments.append(Segment(tag, True))
    if not "".join(segment.text for segment in segments).startswith(choice.text):
        tags = "|".join(map(re.escape, backend.chat_format.output_tags))
        parts = re.split(
            f"({tags})", choice.text
        )  # text that is not that of the ids: go by it alone
        return [Segment(part, i % 2 == 1) for i, part in enumerate(parts)]
    left = len(choice.text)  # a stop string or stop token may end the text before the ids end
    kept = []
    for segment in segments:
        if len(segment.text) > left:
            kept.append(Segment(segment.text[:left], False))
            break
        kept.append(segment)
        left -= len(segment.text)
    return kept
