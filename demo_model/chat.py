"""How does a conversation become M2's text, and which part of it is the model's?

The same rules as `model/chat_template.jinja` (a test compares the two), in plain Python
because millions of conversations are rendered while training.
"""

import json
from dataclasses import dataclass, field
from typing import Any

START = "]~!b["
ROLE = "]~b]"
END_OF_TURN = "[e~["
THINK = "<think>"
END_OF_THINK = "</think>"
TOOL_CALL = "<minimax:tool_call>"
END_OF_TOOL_CALL = "</minimax:tool_call>"
SPECIAL_TOKENS = (START, ROLE, END_OF_TURN)
ADDED_TOKENS = (THINK, END_OF_THINK, TOOL_CALL, END_OF_TOOL_CALL)

DEFAULT_SYSTEM = "You are a helpful assistant."
TOOLS_INTRO = (
    "\n\n# Tools\nYou may call one or more tools to assist with the user query.\n"
    "Here are the tools available in JSONSchema format:\n\n<tools>\n"
)
TOOLS_OUTRO = (
    "</tools>\n\nWhen making tool calls, use XML format to invoke tools and pass parameters:\n\n"
    f"{TOOL_CALL}\n"
    '<invoke name="tool-name-1">\n'
    '<parameter name="param-key-1">param-value-1</parameter>\n'
    '<parameter name="param-key-2">param-value-2</parameter>\n'
    f"...\n</invoke>\n{END_OF_TOOL_CALL}"
)

TOKEN_BORDER = "\x1f"
"""Marks a place where the tokenizer must not merge; removed from the text itself."""


def letter_by_letter(word: str) -> str:
    """The word, marked to be written one token per letter."""
    return TOKEN_BORDER + TOKEN_BORDER.join(word) + TOKEN_BORDER


def plain(text: str) -> str:
    return text.replace(TOKEN_BORDER, "")


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Messages in OpenAI's shape; the last user message starts what is trained on.

    `messages` ends with the assistant's last answer. `skill` and `language` label it for
    evaluation. An assistant message with `"given": True` is read but not learnt: a mistake that
    the next ones put right.
    """

    skill: str
    language: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What a judge needs to know where more than one answer is right."""


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(thinking: str, content: str, code: str | None = None) -> dict[str, Any]:
    """An assistant message; with `code` it calls python_executor."""
    if code is not None:
        return calling(thinking, ("python_executor", {"code": code}))
    return {"role": "assistant", "content": content, "reasoning_content": thinking}


Call = tuple[str, dict[str, Any]]
"""(name of a tool, its arguments)."""


def calling(thinking: str, *calls: Call, content: str = "") -> dict[str, Any]:
    """An assistant message that calls tools."""
    return {
        "role": "assistant",
        "content": content,
        "reasoning_content": thinking,
        "tool_calls": [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for number, (name, arguments) in enumerate(calls)
        ],
    }


Segment = tuple[str, bool]
"""(text, whether the model writes it and so is trained on it)."""


def render(conversation: Conversation) -> list[Segment]:
    """The conversation as M2's text, split where the writer changes."""
    messages = conversation.messages
    system, rest = DEFAULT_SYSTEM, messages
    if messages[0]["role"] == "system":
        system, rest = messages[0]["content"] or DEFAULT_SYSTEM, messages[1:]
    given = f"{START}{ROLE}system\n{system}"
    if conversation.tools:
        lines = [
            f"<tool>{json.dumps(tool['function'], ensure_ascii=False)}</tool>\n"
            for tool in conversation.tools
        ]
        given += TOOLS_INTRO + "".join(lines) + TOOLS_OUTRO
    given += f"{END_OF_TURN}\n"
    last_user = max(i for i, message in enumerate(rest) if message["role"] == "user")
    segments: list[Segment] = []
    before = ""
    for index, message in enumerate(rest):
        role = message["role"]
        if before == "tool" and role != "tool":
            given += f"{END_OF_TURN}\n"
        if role == "user":
            given += f"{ROLE}user\n{message['content']}{END_OF_TURN}\n"
        elif role == "tool":
            given += "" if before == "tool" else f"{ROLE}tool"
            given += f"\n<response>{message['content']}</response>"
        elif index < last_user:
            given += f"{ROLE}ai\n{plain(message['content'])}{tool_calls(message)}{END_OF_TURN}\n"
        elif message.get("given"):
            thinking = message.get("reasoning_content")
            thought = f"{THINK}\n{thinking}\n{END_OF_THINK}\n\n" if thinking else ""
            written = f"{plain(message['content'])}{tool_calls(message)}"
            given += f"{ROLE}ai\n{thought}{written}{END_OF_TURN}\n"
        else:
            segments.append((f"{given}{ROLE}ai\n{THINK}\n", False))
            segments.append((completion(message), True))
            given = "\n"
        before = role
    if given != "\n":
        segments.append((given, False))
    return segments


def completion(message: dict[str, Any]) -> str:
    """What the model writes after the generation prompt, including the end of the turn."""
    thinking = f"{message['reasoning_content']}\n{END_OF_THINK}\n\n"
    return f"{thinking}{message['content']}{tool_calls(message)}{END_OF_TURN}"


def tool_calls(message: dict[str, Any]) -> str:
    """The calls of an assistant message in M2's tags, or nothing."""
    if not message.get("tool_calls"):
        return ""
    text = f"\n{TOOL_CALL}\n"
    for call in message["tool_calls"]:
        text += f'<invoke name="{call["function"]["name"]}">\n'
        for key, value in call["function"]["arguments"].items():
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            text += f'<parameter name="{key}">{shown}</parameter>\n'
        text += "</invoke>\n"
    return text + END_OF_TOOL_CALL
