"""The agent's connection: failures told apart, and the key kept from other hosts."""

import asyncio
import contextlib
import email.utils
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from expertmesh.agent.loop.turn import ServedChat
from expertmesh.clients.chat_stream import (
    ChatError,
    ChatStream,
    LostError,
    RefusedError,
    retry_after_s,
)

KEY = "sk-very-secret-key-0123456789"


def event(**delta: str) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": "stop"}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
WHOLE = OK + event(content="yes") + b"data: [DONE]\n\n"


@dataclass
class Server:
    """Answers each request with the next of its raw answers, the last one again and again."""

    answers: Sequence[bytes]
    requests: list[bytes] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")),
            0,
        )
        self.requests.append(head + await reader.readexactly(length))
        writer.write(self.answers[min(len(self.requests), len(self.answers)) - 1])
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[Server]:
    server = Server(answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()


def whole(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def ask(url: str, key: str | None = None) -> str:
    chat = ChatStream(url, key)
    try:
        return (await chat.ask({"messages": []}, lambda piece, reply: None)).content
    finally:
        await chat.close()


async def test_the_key_goes_to_the_server_that_was_named() -> None:
    async with serving(WHOLE) as server:
        assert await ask(server.url + "/v1/", KEY) == "yes"
    assert b"POST /v1/chat/completions " in server.requests[0]
    assert f"authorization: bearer {KEY}".encode() in server.requests[0].lower()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed_and_takes_no_key_along(status: str) -> None:
    async with serving(WHOLE) as other:
        place = other.url.replace("127.0.0.1", "localhost")
        async with serving(whole(status, "", f"Location: {place}/v1/x")) as server:
            with pytest.raises(RefusedError, match=f"a redirect to {place}/v1/x, which is not"):
                await ask(server.url, KEY)
            chat = ChatStream(server.url, KEY)
            with pytest.raises(ChatError):
                await chat.served_model()
            await chat.close()
    assert other.requests == []


@pytest.mark.parametrize(
    ("raw", "error", "words"),
    [
        (OK + event(content="ha"), LostError, "ended before it was complete"),
        (OK, LostError, "ended before it was complete"),
        (b"", LostError, "cannot reach"),
        (OK + b"data: {\n\n", LostError, "not JSON"),
        (OK + b'data: {"error": {"message": "boom"}}\n\n', LostError, "while it answered: boom"),
        (OK + b'data: {"error": "boom"}\n\n', LostError, "while it answered: boom"),
        (OK + b'data: {"choices": [7]}\n\n', ChatError, "unknown shape"),
        (
            whole("400 Bad", '{"error": {"message": "no such field"}}'),
            RefusedError,
            "no such field",
        ),
        (whole("500 Oops", "plain text"), RefusedError, "answered 500: plain text"),
    ],
)
async def test_failures_are_told_apart(raw: bytes, error: type[ChatError], words: str) -> None:
    async with serving(raw) as server:
        with pytest.raises(error, match=words) as caught:
            await ask(server.url)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("url", "key", "words"),
    [
        ("http://x:abc", None, "base_url 'http://x:abc': Invalid port"),
        ("x", "ключ", "api_key: printable ASCII"),
        ("x", "a\nb", "api_key: printable ASCII"),
    ],
)
def test_what_cannot_be_asked_is_named(url: str, key: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ChatStream(url, key)


async def test_a_server_that_is_not_there() -> None:
    with pytest.raises(LostError, match=r"cannot reach http://127\.0\.0\.1:9"):
        await ask("127.0.0.1:9")


@pytest.mark.parametrize(
    ("message", "is_too_long"),
    [
        ("This model's maximum context length is 4096 tokens", True),
        ("prompt is too long: 5000 tokens", True),
        ("temperature: must be at most 2", False),
    ],
)
async def test_a_conversation_that_is_too_long(message: str, is_too_long: bool) -> None:
    async with serving(whole("400 Bad", json.dumps({"error": {"message": message}}))) as server:
        with pytest.raises(RefusedError) as caught:
            await ask(server.url)
    assert caught.value.is_too_long is is_too_long


@pytest.mark.parametrize(
    ("listed", "wanted", "name", "length"),
    [
        ([{"id": "a", "max_model_len": 9}, {"id": "b"}], None, "a", 9),
        ([{"id": "a"}, {"id": "b", "context_length": 7}], "b", "b", 7),
        ([{"id": "a", "max_model_len": None}], None, "a", None),
        ([{"id": "a", "max_model_len": 9}], "unlisted", "unlisted", None),
    ],
)
async def test_what_the_server_says_of_its_model(
    listed: list[object], wanted: str | None, name: str, length: int | None
) -> None:
    async with serving(whole("200 OK", json.dumps({"data": listed}))) as server:
        chat = ChatStream(server.url)
        found = await chat.served_model(wanted)
        await chat.close()
    assert (found.name, found.max_model_len) == (name, length)


async def retried(*answers: bytes) -> tuple[str, list[float]]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with serving(*answers) as server:
        chat = ChatStream(server.url)
        try:
            served = ServedChat(chat, {"model": "m"}, sleep=sleep)
            reply = await served.ask([], [], lambda piece, reply: None)
        except ChatError as error:
            return f"{type(error).__name__}: {error}", waits
        finally:
            await chat.close()
        return reply.content, waits


async def test_a_busy_server_is_asked_again_when_it_says() -> None:
    busy = whole("429 Busy", "", "Retry-After: 7")
    away = whole("503 Away", "", "Retry-After: 11")
    assert await retried(busy, away, WHOLE) == ("yes", [7.0, 11.0])


async def test_without_a_time_the_waits_double_and_end() -> None:
    answer, waits = await retried(whole("503 Away", "no pool"))
    assert answer.startswith("RefusedError: ")
    assert "answered 503: no pool" in answer
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]


async def test_an_answer_that_broke_off_is_asked_for_again() -> None:
    assert await retried(OK + event(content="ye"), WHOLE) == ("yes", [1.0])


@pytest.mark.parametrize(
    "raw", [whole("400 Bad", ""), whole("401 No", ""), whole("429 Busy", "", "Retry-After: 9999")]
)
async def test_what_waiting_does_not_mend_is_not_waited_for(raw: bytes) -> None:
    answer, waits = await retried(raw)
    assert answer.startswith("RefusedError: ")
    assert waits == []


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s("12") == 12.0
    assert retry_after_s(None) is None
    assert retry_after_s("soon") is None
    assert retry_after_s("-5") is None
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < (retry_after_s(soon) or 0) <= 30
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
