"""Which thinking belongs to a turn with tool calls that a client returned without it?

M2 continues its thinking between the calls of one task. Without it, M2 takes a tool's result for a
new task and repeats the call endlessly. Many clients drop fields that they do not know, but the ids
of calls are ours and come back. So the thinking is kept under the id of the turn's first call, for
the tenant that got it, and put back where the turn has none.
"""

import hashlib
from typing import Any

from gateway.text.recently_used import RecentlyUsed

_ENTRY_BYTES = 250
"""What an entry holds besides its text: key, string object and table slot."""


class ReturnedThinking(RecentlyUsed[str]):
    """The most recently used entries of all tenants within `max_bytes`. Thread-safe."""

    def __init__(self, *, max_bytes: int):
        super().__init__(_size, max_bytes=max_bytes)

    def remember(self, tenant: str, call_id: str, thinking: str) -> None:
        """Keep what was thought before the call with this id."""
        if thinking and _size(thinking) <= self._max_bytes:
            self._put(_key(tenant, call_id), thinking)

    def restore(self, tenant: str, turns: list[dict[str, Any]]) -> int:
        """Put `reasoning_content` into turns that lack it; gives how many got it.

        Args:
            turns: as `normalise_messages` gives them.
        """
        restored = 0
        for turn in turns:
            calls = turn.get("tool_calls")
            if not calls or turn.get("reasoning_content"):
                continue
            call_id = calls[0].get("id")
            thinking = self._get(_key(tenant, call_id)) if isinstance(call_id, str) else None
            if thinking is not None:
                turn["reasoning_content"] = thinking
                restored += 1
        return restored


def _key(tenant: str, call_id: str) -> bytes:
    tenant_digest = hashlib.sha256(tenant.encode()).digest()
    return hashlib.sha256(tenant_digest + call_id.encode(errors="replace")).digest()


def _size(thinking: str) -> int:
    return _ENTRY_BYTES + 4 * len(thinking)
