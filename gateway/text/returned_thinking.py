"""Which thinking belongs to a turn with tool calls that a client returned without it?

M2 continues its thinking between the calls of one task. Without it, M2 takes a tool's result for a
new task and repeats the call endlessly. Many clients drop fields that they do not know. So the
thinking is kept under a digest of its scope, of the conversation before the turn, and of the turn
as the client got it: the text, and the calls with their ids, names and arguments. The ids are 128
random bits of ours. A turn that was edited, or is part of another conversation, gets nothing.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from gateway.text.recently_used import RecentlyUsed

_ENTRY_BYTES = 250
"""What an entry holds besides its text: key, string object and table slot."""


class Conversation:
    """A digest of turns, as `normalise_messages` gives them, that grows with them.

    Thinking does not count: some clients return it for some turns only.
    """

    def __init__(self, turns: Sequence[dict[str, Any]] = ()):
        self._digest = hashlib.sha256()
        for turn in turns:
            self.add(turn)

    def add(self, turn: dict[str, Any]) -> None:
        said = {key: value for key, value in turn.items() if key != "reasoning_content"}
        data = json.dumps(said, sort_keys=True, default=str).encode()
        self._digest.update(b"%d:" % len(data) + data)

    def key(self, scope: str, turn: dict[str, Any]) -> bytes:
        """Of the turn that follows."""
        with_turn = Conversation()
        with_turn._digest = self._digest.copy()
        with_turn.add(turn)
        with_turn.add({"scope": scope})
        return with_turn._digest.digest()


class ReturnedThinking(RecentlyUsed[str]):
    """The most recently used entries of all scopes within `max_bytes`. Thread-safe."""

    def __init__(self, *, max_bytes: int):
        super().__init__(_size, max_bytes=max_bytes)

    def remember(
        self, scope: str, conversation: Conversation, turn: dict[str, Any], thinking: str
    ) -> None:
        """Keep what was thought before this answer to the conversation.

        Args:
            turn: as `normalise_messages` gives it when it comes back.
        """
        if thinking and _size(thinking) <= self._max_bytes:
            self._put(conversation.key(scope, turn), thinking)

    def restore(
        self, scope: str, turns: list[dict[str, Any]], conversation: Conversation | None = None
    ) -> int:
        """Put `reasoning_content` into turns with calls that lack it; gives how many got it.

        Args:
            conversation: an empty one, which grows to these turns.
        """
        restored = 0
        conversation = Conversation() if conversation is None else conversation
        for turn in turns:
            if turn.get("tool_calls") and not turn.get("reasoning_content"):
                thinking = self._get(conversation.key(scope, turn))
                if thinking is not None:
                    turn["reasoning_content"] = thinking
                    restored += 1
            conversation.add(turn)
        return restored


def _size(thinking: str) -> int:
    return _ENTRY_BYTES + 4 * len(thinking)
