"""What does the model see next? The conversation, and what is left out of it when it grows full.

Messages are only ever appended, so that a server with a prefix cache computes each once. When the
context is three quarters full, all older results of tools become one line each, at once: the cache
is lost from the first of them on, so that doing it seldom and thoroughly costs least.
"""

import json
from dataclasses import dataclass
from typing import Any

FULL_SHARE = 0.75
_WORTH_CHARS = 200
_CHARS_PER_TOKEN = 3.0
"""Until the server has counted once."""


@dataclass(frozen=True)
class LeftOut:
    """A message whose text was replaced."""

    index: int
    text: str


class History:
    """The messages of one run; `max_model_len` is None where the server does not say."""

    def __init__(self, max_model_len: int | None):
        self.messages: list[dict[str, Any]] = []
        self.max_model_len = max_model_len
        self._notes: dict[int, str] = {}
        """Index of a tool's message -> the line that may stand for it."""
        self._chars = self._counted_chars = 0
        self._counted_tokens = 0

    def add(self, message: dict[str, Any], note: str = "") -> None:
        """`note` can later replace the content."""
        if note and len(message["content"]) > _WORTH_CHARS:
            self._notes[len(self.messages)] = note
        self.messages.append(message)
        self._chars += _chars(message)

    def counted(self, prompt_tokens: int, completion_tokens: int) -> None:
        """The server's count for all messages, of which the last is its answer."""
        self._counted_tokens = prompt_tokens + completion_tokens
        self._counted_chars = self._chars

    def estimated_tokens(self) -> int:
        """Of the next prompt: the last count, and what was added at the same rate."""
        if not self._counted_tokens:
            return round(self._chars / _CHARS_PER_TOKEN)
        rate = self._counted_tokens / max(1, self._counted_chars)
        return self._counted_tokens + round((self._chars - self._counted_chars) * rate)

    def is_full(self) -> bool:
        limit = self.max_model_len
        return limit is not None and self.estimated_tokens() > FULL_SHARE * limit

    def compact(self, *, hard: bool = False) -> list[LeftOut]:
        """Replace older results; returns what was replaced, nothing if there is none.

        Those of the last two turns stay if that makes enough room, else those of the last one;
        with `hard`, when the server finds the conversation too long, none.
        """
        replaced: list[LeftOut] = []
        for kept_turns in (2, 1, 0):
            if kept_turns == 0 and not hard:
                break
            end = self._beginning_of_last(kept_turns)
            older = [LeftOut(i, note) for i, note in self._notes.items() if i < end]
            self.replace(older)
            replaced += older
            if replaced and not self.is_full():
                break
        return replaced

    def _beginning_of_last(self, turns: int) -> int:
        """The index from which the last so many answers, and what followed them, stand."""
        answers = [i for i, one in enumerate(self.messages) if one["role"] == "assistant"]
        return ([0, *answers, len(self.messages)])[-1 - turns] if turns <= len(answers) else 0

    def replace(self, texts: list[LeftOut]) -> None:
        for one in texts:
            old = self.messages[one.index]
            new = self.messages[one.index] = {**old, "content": one.text}
            self._chars += _chars(new) - _chars(old)
            self._notes.pop(one.index, None)


def _chars(message: dict[str, Any]) -> int:
    """Of everything that a template writes; names and roles count as text, which is near enough."""
    return len(json.dumps(message, ensure_ascii=False))
