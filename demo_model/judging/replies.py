"""What does a raw completion say, and which calls does it make?"""

import re
from dataclasses import dataclass

from demo_model import chat

BLOCK = re.compile(
    re.escape(chat.TOOL_CALL) + r"\n(.*?)" + re.escape(chat.END_OF_TOOL_CALL), re.DOTALL
)
INVOKE = re.compile(r'<invoke name="([^"\n]*)">\n(.*?)</invoke>\n', re.DOTALL)
PARAMETER = re.compile(r'<parameter name="([^"\n]*)">(.*?)</parameter>\n', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Said:
    """One answer of the model. `calls` is None if what looks like calls is malformed."""

    thinking: str
    content: str
    calls: tuple[tuple[str, dict[str, str]], ...] | None


def read(text: str) -> Said:
    """The parts of a completion, as the gateway would find them."""
    thinking, end, rest = text.partition(chat.END_OF_THINK)
    if not end:
        return Said(thinking=text, content="", calls=None)
    content, tag, _ = rest.partition(chat.TOOL_CALL)
    found = BLOCK.findall(rest)
    calls: list[tuple[str, dict[str, str]]] | None = []
    if tag and (len(found) != 1 or BLOCK.sub("", rest).strip() != content.strip()):
        calls = None
    elif tag:
        calls = _calls(found[0])
    return Said(
        thinking=thinking.strip("\n"),
        content=content.strip("\n"),
        calls=None if calls is None else tuple(calls),
    )


def _calls(block: str) -> list[tuple[str, dict[str, str]]] | None:
    invokes = INVOKE.findall(block)
    if not invokes or INVOKE.sub("", block).strip():
        return None
    calls = []
    for name, inner in invokes:
        if PARAMETER.sub("", inner).strip():
            return None
        calls.append((name, dict(PARAMETER.findall(inner))))
    return calls
