"""A stand-in for any service: logs its ports, answers /readyz, chats one canned answer.

Flags of real services are accepted and mostly ignored; FAKE_* flags choose behaviour.
"""

import argparse
import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GRPC_PORT = "1"
"""The gRPC port all of them report; nothing listens there."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--router")
    parser.add_argument("--kind", default="ops")
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--die-after-s", type=float)
    parser.add_argument("--stubborn", action="store_true")
    parser.add_argument("--die-at-second-start", action="store_true")
    parser.add_argument("--told")
    parser.add_argument("--journal")
    flags = parser.parse_args()
    host, _, port = flags.listen.rpartition(":")
    port = "0" if port == GRPC_PORT else port
    started = time.monotonic()
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            loaded = min(1.0, (time.monotonic() - started) / flags.load_s) if flags.load_s else 1.0
            if self.path == "/v1/models":
                self.answer(200, json.dumps({"data": [{"id": "fake"}]}).encode())
            elif loaded < 1.0:
                self.answer(503, f"loading {100 * loaded:.0f} %\n".encode())
            else:
                self.answer(200, b"ready\n")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][-1]["content"]
            if question == "fail":
                self.answer(503, json.dumps({"error": {"message": "no pool"}}).encode())
                return
            deltas = [{"reasoning_content": "let me "}, {"reasoning_content": "think"}]
            deltas += [{"content": "you said "}, {"content": question}]
            events = [{"choices": [{"delta": delta}]} for delta in deltas]
            events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            events.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4}})
            lines = [": ping", *(f"data: {json.dumps(event)}" for event in events)]
            if question != "break":
                lines.append("data: [DONE]")
            self.answer(200, "".join(f"{line}\n\n" for line in lines).encode(), "text/event-stream")

        def answer(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    def on_signal(number: int, frame: object) -> None:
        if not flags.stubborn:
            stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    server = ThreadingHTTPServer((host, int(port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bound = f"{host}:{server.server_address[1]}"
    where = f"http={bound}" if flags.kind == "http" else f"grpc=127.0.0.1:{GRPC_PORT} ops={bound}"
    sys.stderr.write(f"2026 INFO fake listening {where}\n")
    starts = note(flags.journal, f"start {flags.router or ''}")
    note(flags.journal, f"listen {flags.listen}")
    if flags.die_at_second_start and starts > 1:
        return 7
    stop.wait(flags.die_after_s)
    if not stop.is_set() and flags.die_after_s:
        sys.stderr.write("fatal: out of luck\n")
        return 7
    note(flags.journal, "stop")
    return 0


def note(journal: str | None, what: str) -> int:
    """Note it; returns how often that happened so far."""
    if not journal:
        return 0
    path, _, name = journal.rpartition(":")
    line = f"{name} {what}".strip()
    with open(path, "a+") as file:
        file.write(line + "\n")
        file.seek(0)
        return file.read().splitlines().count(line)


if __name__ == "__main__":
    sys.exit(main())
