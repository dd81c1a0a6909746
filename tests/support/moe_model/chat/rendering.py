"""What a prompt looks like to a person."""

from typing import Any

from moe_model.chat.template import ChatTemplate


def render_text(
    template: ChatTemplate,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    **options: Any,
) -> str:
    """The prompt as one string, markers and text alike. Not for tokenising."""
    segments = template.render(messages, tools, **options)
    return "".join(segment.text for segment in segments)
