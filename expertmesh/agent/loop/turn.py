"""How is the model asked for its next turn, and asked again when its server has no time?"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from expertmesh.clients.chat import Piece, Reply
from expertmesh.clients.chat_stream import ChatError, ChatStream, LostError, RefusedError

RETRIED = (429, 500, 502, 503, 504, 529)
MAX_TRIES = 6
MAX_WAIT_S = 120.0
"""A server that wants more time than this is not waited for."""

OnPiece = Callable[[Piece, Reply], None]
OnWait = Callable[[float, str], None]


class Model(Protocol):
    """What answers a conversation."""

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], on_piece: OnPiece
    ) -> Reply:
        """One whole answer. Raises ChatError."""


class ServedChat:
    """A model behind a server. What it is asked with besides the messages is in `settings`."""

    def __init__(
        self,
        chat: ChatStream,
        settings: dict[str, Any],
        *,
        on_wait: OnWait = lambda seconds, reason: None,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ):
        self._chat = chat
        self._settings = settings
        self._on_wait = on_wait
        self._sleep = sleep

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], on_piece: OnPiece
    ) -> Reply:
        """Tries again while the server is busy or restarts: an answer that broke off is lost."""
        body = {**self._settings, "messages": messages, **({"tools": tools} if tools else {})}
        for tries in range(1, MAX_TRIES + 1):
            try:
                return await self._chat.ask(body, on_piece)
            except ChatError as error:
                wait_s = _wait_s(error, tries)
                if wait_s is None or tries == MAX_TRIES:
                    raise
                self._on_wait(wait_s, str(error))
                await self._sleep(wait_s)
        raise AssertionError("the last try returns or raises")


def _wait_s(error: ChatError, tries: int) -> float | None:
    """Seconds until the next try: as the server says, else 1, 2, 4...; None: it would not help."""
    if isinstance(error, RefusedError):
        if error.status not in RETRIED:
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= MAX_WAIT_S else None
    elif not isinstance(error, LostError):
        return None
    return float(2 ** (tries - 1))
