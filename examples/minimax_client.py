"""A client of MiniMax's own path, with the standard library alone: streamed, thinking apart.

    python examples/minimax_client.py --base-url http://127.0.0.1:8000 "What is 47 + 15?"

The path answers as MiniMax's service does: its model's name is taken, and thinking stays in the
content, between <think> tags.
"""

import argparse
import json
import os
import urllib.request
from collections.abc import Iterator
from typing import Any

PATH = "/v1/text/chat/completions"


class Client:
    """One server and one key."""

    def __init__(self, base_url: str, api_key: str, model: str = "MiniMax-M2"):
        self._url = base_url.rstrip("/") + PATH
        self._api_key = api_key
        self._model = model

    def chat(self, messages: list[dict[str, str]], **fields: Any) -> str:
        """The whole answer. Raises urllib.error.HTTPError, whose body says what was wrong."""
        with self._open({"messages": messages, **fields}) as reply:
            content: str = json.load(reply)["choices"][0]["message"]["content"]
            return content

    def stream(self, messages: list[dict[str, str]], **fields: Any) -> Iterator[str]:
        """The answer in pieces, as they come."""
        with self._open({"messages": messages, "stream": True, **fields}) as reply:
            for line in reply:
                data = line.decode().strip().removeprefix("data: ")
                if not data or data.startswith(":"):  # a blank line, or a comment
                    continue
                if data == "[DONE]":
                    return
                event = json.loads(data)
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                for choice in event["choices"]:
                    yield choice["delta"].get("content") or ""

    def _open(self, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._url,
            json.dumps({"model": self._model, **body}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._api_key}"},
        )
        return urllib.request.urlopen(request, timeout=600)


def thinking_and_answer(text: str) -> tuple[str, str]:
    """The two parts of an answer's content."""
    thinking, found, answer = text.partition("</think>")
    return (thinking.removeprefix("<think>").strip(), answer.strip()) if found else ("", text)


def main() -> None:
    """Ask one question twice: streamed, and whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", nargs="?", default="What is 47 + 15?")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="MiniMax-M2")
    flags = parser.parse_args()
    key = os.environ.get("EXPERTMESH_API_KEY", "none")
    client = Client(flags.base_url, key, flags.model)
    messages = [{"role": "user", "content": flags.question}]
    text = ""
    for piece in client.stream(messages, temperature=0, max_tokens=300):
        print(piece, end="", flush=True)
        text += piece
    print()
    thinking, answer = thinking_and_answer(text)
    print(f"thinking: {len(thinking)} characters")
    print(f"answer: {answer}")
    whole = client.chat(messages, temperature=0, max_tokens=300)
    print(f"the same whole: {whole == text}")


if __name__ == "__main__":
    main()
