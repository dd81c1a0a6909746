"""What does a step of the agent cost beside the model and the tool?

A server in a process of its own answers at once with a call, of a tool that does nothing and
returns some KiB. It takes the time from the last byte of an answer to the last byte of the next
request: that is the agent's own, with the connection, the JSON of a conversation that grows, the
trace, and the kept outputs. `cpu_ms` is what of it the agent's process computed; the rest are the
kernel, the server, and others on busy cores. The last line is JSON.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expertmesh.agent.loop.turn import ServedChat
from expertmesh.agent.sandbox.policy import Outcome
from expertmesh.agent.session import Session, Settings
from expertmesh.agent.tools.tool import Effect, Result, Source, Status, object_schema
from expertmesh.clients.chat_stream import ChatStream

TARGET_MS = 20.0


class AnsweringServer:
    """Answers with calls, `steps` times, then with text; keeps the time before each request."""

    def __init__(self, steps: int):
        self._steps = steps
        self._answered_s = 0.0
        self._turn = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            except asyncio.IncompleteReadError:
                writer.close()
                return
            length = int(head.partition("content-length: ")[2].partition("\r")[0])
            await reader.readexactly(length)
            arrived_s = time.perf_counter()
            if self._answered_s:
                own_ms = 1000 * (arrived_s - self._answered_s)
                print(json.dumps({"own_ms": own_ms, "request_bytes": length}), flush=True)
            self._turn += 1
            writer.write(self._answer())
            await writer.drain()
            self._answered_s = time.perf_counter()

    def _answer(self) -> bytes:
        if self._turn > self._steps:
            delta: dict[str, Any] = {"content": "done"}
            reason = "stop"
        else:
            function = {"name": "nothing", "arguments": json.dumps({"turn": self._turn})}
            call = {"index": 0, "id": f"c{self._turn}", "function": function}
            delta = {"reasoning_content": "What next? " * 20, "tool_calls": [call]}
            reason = "tool_calls"
        usage = {"prompt_tokens": 100, "completion_tokens": 50}
        events = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]},
            {"choices": [], "usage": usage},
        ]
        body = "".join(f"data: {json.dumps(one)}\n\n" for one in events) + "data: [DONE]\n\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        return (head + body).encode()


async def serve(steps: int) -> None:
    server = await asyncio.start_server(AnsweringServer(steps).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass
class Nothing:
    """A tool that takes no time."""

    size_bytes: int
    name: str = "nothing"
    description: str = "Does nothing."
    effect: Effect = Effect.READS
    parameters: dict[str, Any] = field(
        default_factory=lambda: object_schema({"turn": {"type": "integer"}})
    )

    async def call(self, arguments: dict[str, Any]) -> Result:
        text = f"{arguments['turn']} " + "x" * self.size_bytes
        return Result(Status.OK, text, (Source("nowhere", text[:100], str(arguments), 0.0),))


class NoSandbox:
    """For tools that run nothing."""

    mechanism = "none"

    async def run(self, argv: Any, **_: Any) -> Outcome:
        raise AssertionError("this bench runs no command")


async def work(port: int, steps: int, size_bytes: int, folder: Path) -> None:
    chat = ChatStream(f"http://127.0.0.1:{port}")
    work_dir = folder / "work"
    work_dir.mkdir()
    settings = Settings(work_dir=work_dir, max_steps=steps + 2, tools=("file_editor",))
    with Session(
        ServedChat(chat, {"model": "none"}),
        settings,
        state=folder / "state",
        sandbox=NoSandbox(),
        others=[Nothing(size_bytes)],
    ) as session:
        progress = await session.run("Do nothing, often.")
    await chat.close()
    assert progress.steps == steps + 1, progress


def measure(steps: int, size_bytes: int) -> tuple[list[dict[str, float]], float]:
    """One entry for each request but the first, and the CPU seconds of all."""
    command = [sys.executable, __file__, "--serve", "--steps", str(steps)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            with tempfile.TemporaryDirectory() as folder:
                began_s = time.process_time()
                asyncio.run(work(port, steps, size_bytes, Path(folder)))
                cpu_s = time.process_time() - began_s
        finally:
            server.terminate()
        return [json.loads(line) for line in server.stdout], cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--result-bytes", type=int, default=4096)
    parser.add_argument("--serve", action="store_true", help="be the server")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.steps))
        return
    taken, cpu_s = measure(given.steps, given.result_bytes)
    own_ms = sorted(one["own_ms"] for one in taken)
    last_bytes = taken[-1]["request_bytes"]
    print(f"{len(taken)} steps; the last request has {last_bytes / 1024:.0f} KiB")
    for name, share in (("median", 0.5), ("p90", 0.9), ("most", 1.0)):
        print(f"  {name}: {own_ms[min(len(own_ms) - 1, int(share * len(own_ms)))]:.2f} ms a step")
    cpu_ms = 1000 * cpu_s / len(taken)
    print(f"  CPU: {cpu_ms:.2f} ms a step, on average")
    print(
        json.dumps(
            {
                "bench": "agent_loop",
                "steps": len(taken),
                "result_bytes": given.result_bytes,
                "last_request_bytes": last_bytes,
                "median_ms": round(own_ms[len(own_ms) // 2], 3),
                "p90_ms": round(own_ms[int(0.9 * len(own_ms))], 3),
                "max_ms": round(own_ms[-1], 3),
                "cpu_ms": round(cpu_ms, 3),
                "target_ms": TARGET_MS,
            }
        )
    )


if __name__ == "__main__":
    main()
