"""How does an agent ask? Streamed chat completions over asyncio, with the failures told apart.

Redirects are not followed: the key, and what the conversation holds, go to the server that the
user named and to no other.
"""

import asyncio
import contextlib
import email.utils
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from expertmesh.clients.chat import Piece, Reply, error_message, server_root, timed_pieces

CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 300.0
"""Our gateway sends a comment every 10 s; other servers are silent during a long prefill."""
_END_TIMEOUT_S = 0.25
"""For the end of a body after its last event; a server need not send it."""
_CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")


class ChatError(Exception):
    """The server gave no whole answer; the message is for people."""


class RefusedError(ChatError):
    """The server refused the request."""

    def __init__(self, root: str, status: int, message: str, retry_after_s: float | None = None):
        super().__init__(f"{root} answered {status}: {message}")
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_too_long = status in (400, 413) and any(
            words in message.lower() for words in ("context length", "context_length", "too long")
        )


class LostError(ChatError):
    """The server cannot be reached, or went away in the middle of its answer."""


@dataclass(frozen=True)
class ServedModel:
    """What the server says of its first model, or of the one asked for."""

    name: str
    max_model_len: int | None
    """Tokens of prompt and answer together; None where the server does not say."""


class ChatStream:
    """A connection to one server, used for one question after the other."""

    def __init__(self, base_url: str, api_key: str | None = None):
        """`base_url` with or without the trailing /v1. Raises ValueError naming what is wrong."""
        self.root = server_root(base_url)
        try:
            httpx.URL(self.root)
        except httpx.InvalidURL as error:
            raise ValueError(f"base_url {base_url!r}: {error}") from None
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("api_key: printable ASCII characters only")
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
            follow_redirects=False,
            verify=self.root.startswith("https"),  # loading certificates takes longer than a turn
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def served_model(self, name: str | None = None) -> ServedModel:
        """The model of this name, or the first that the server lists. Raises ChatError."""
        try:
            answer = await self._client.get(f"{self.root}/v1/models")
        except httpx.HTTPError as error:
            raise self._lost(error) from None
        if name is not None and answer.status_code == 404:
            return ServedModel(name, None)  # some servers list none
        self._check(answer)
        try:
            models = [one for one in answer.json()["data"] if isinstance(one, dict)]
        except (ValueError, KeyError, TypeError):
            raise ChatError(f"{self.root}/v1/models: no list of models") from None
        wanted = [one for one in models if name in (None, one.get("id"))]
        if not wanted:
            if name is not None:
                return ServedModel(name, None)
            raise ChatError(f"{self.root} lists no model")
        lengths = (wanted[0].get(field) for field in _CONTEXT_FIELDS)
        length = next((one for one in lengths if isinstance(one, int) and one > 0), None)
        return ServedModel(str(wanted[0]["id"]), length)

    async def ask(self, body: dict[str, Any], on_piece: Callable[[Piece, Reply], None]) -> Reply:
        """The whole answer; `on_piece` sees its pieces as they come. Raises ChatError."""
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        reply, started_s = Reply(), time.monotonic()
        try:
            async with self._client.stream(
                "POST", f"{self.root}/v1/chat/completions", json=body
            ) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    self._check(answer)
                async for event in self._events(answer):
                    for piece in timed_pieces(event, reply, started_s):
                        on_piece(piece, reply)
        except httpx.HTTPError as error:
            raise self._lost(error) from None
        except (AttributeError, KeyError, TypeError) as error:
            raise ChatError(f"{self.root} sent an event of unknown shape: {error}") from None
        reply.total_s = time.monotonic() - started_s
        return reply

    async def _events(self, answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        lines = answer.aiter_lines()
        async for line in lines:
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                await _read_out(lines)
                return
            try:
                event = json.loads(data)
            except ValueError:
                raise LostError(f"{self.root} sent an event that is not JSON") from None
            error = event.get("error")
            if error:
                message = error.get("message", error) if isinstance(error, dict) else error
                raise LostError(f"{self.root} failed while it answered: {message}")
            yield event
        raise LostError(f"{self.root}: the answer ended before it was complete")

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_redirect:
            place = answer.headers.get("location", "elsewhere")
            message = f"a redirect to {place}, which is not followed: give that server's URL"
            raise RefusedError(self.root, answer.status_code, message)
        if answer.status_code != 200:
            wait_s = retry_after_s(answer.headers.get("retry-after"))
            raise RefusedError(self.root, answer.status_code, error_message(answer), wait_s)

    def _lost(self, error: httpx.HTTPError) -> LostError:
        return LostError(f"cannot reach {self.root} ({str(error) or type(error).__name__})")


async def _read_out(lines: AsyncIterator[str]) -> None:
    """To the end of the body: only then can the connection take the next request."""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_END_TIMEOUT_S):
            async for _ in lines:
                pass


def retry_after_s(header: str | None) -> float | None:
    """The header's seconds or date as seconds from now; None without a readable one."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())
