"""An OpenAI-style server that streams what a script says, at the times it says."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

Script = Callable[[dict[str, Any]], list[Any]]
"""Of a request's body: floats are pauses in seconds, dictionaries events, strings raw data; an
integer first is an HTTP status to refuse with."""


def tokens(*texts: str, pause_s: float = 0.0, prompt: int = 7, cached: int = 0) -> Script:
    """One chunk for each text, with counts where they are asked for."""

    def script(body: dict[str, Any]) -> list[Any]:
        options = body["stream_options"]
        items: list[Any] = []
        for count, text in enumerate(texts[: body["max_tokens"]], 1):
            chunk: dict[str, Any] = {
                "choices": [{"index": 0, "text": text, "delta": {"content": text}}]
            }
            if options.get("continuous_usage_stats"):
                chunk["usage"] = {"prompt_tokens": prompt, "completion_tokens": count}
            items += [pause_s, chunk]
        used = {"prompt_tokens": prompt, "completion_tokens": min(len(texts), body["max_tokens"])}
        end = {"choices": [], "usage": {**used, "prompt_tokens_details": {"cached_tokens": cached}}}
        if body.get("expertmesh_timings"):
            end["expertmesh_timings"] = {"attention_ms": 3.0, "network_ms": 1.0}
        return [*items, end, "[DONE]"]

    return script


class FakeServer:
    """Serves from a thread until `close` and keeps the bodies it received."""

    def __init__(self, script: Script):
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.open = self.most_open = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(5)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (
                    int(line.split(":")[1])
                    for line in head.split("\r\n")
                    if line.lower().startswith("content-length:")
                ),
                0,
            )
            body = await reader.readexactly(length)
            path = head.split(" ")[1]
            if path.startswith("/v1/") and length:
                await self._answer(json.loads(body), writer)
            elif path == "/v1/models":
                self._whole(writer, 200, {"data": [{"id": "fake"}]})
            elif path == "/tokenize":
                self._whole(writer, 200, {"tokens": list(range(50, 150))})
            else:
                self._whole(writer, 404, {})
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            writer.close()

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.bodies.append(body)
        items = self.script(body)
        if isinstance(items[0], int):
            self._whole(writer, items[0], {"error": {"message": "refused"}})
            return
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for item in items:
                if isinstance(item, float):
                    await asyncio.sleep(item)
                    continue
                data = item if isinstance(item, str) else json.dumps(item)
                event = f"data: {data}\n\n".encode()
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        finally:
            self.open -= 1

    @staticmethod
    def _whole(writer: asyncio.StreamWriter, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))
