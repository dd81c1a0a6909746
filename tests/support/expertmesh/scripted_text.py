"""Models of which a test says what they answer: one without a server, and a server's script."""

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from expertmesh import SamplingParams
from expertmesh.agent.loop.turn import Model, OnPiece
from expertmesh.assistants.asking.model import Answer, Messages, Schema, nobody_watches
from expertmesh.clients.chat import Piece, Reply
from tests.support.expertmesh.fake_openai_server import Script


class ScriptedText:
    """Gives these answers one after another, and keeps what it was asked."""

    name = "scripted"

    def __init__(self, *answers: str | Answer, tools: Model | None = None):
        self._answers = iter(answers)
        self._tools = tools
        self.max_model_len: int | None = None
        self.asked: list[Messages] = []
        self.schemas: list[Schema | None] = []

    async def ask(
        self,
        messages: Messages,
        *,
        schema: Schema | None = None,
        on_piece: OnPiece = nobody_watches,
    ) -> Answer:
        self.asked.append(messages)
        self.schemas.append(schema)
        answer = next(self._answers)
        if isinstance(answer, str):
            reply = Reply(content=answer, finish_reason="stop", completion_tokens=len(answer))
            answer = Answer(answer, False, reply)
        on_piece(Piece("content", answer.text), answer.reply)
        return answer

    def with_tools(self) -> Model:
        assert self._tools is not None
        return self._tools


class ToyLlm:
    """Yields these raw texts as an `LLM` does, each as long as all before and more."""

    max_model_len = 100

    def __init__(self, *texts: str, content: str = "", finish_reason: str = "stop"):
        self.texts, self.content, self.finish_reason = texts, content, finish_reason
        self.params: Any = None
        self.messages: Messages = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.was_left = threading.Event()

    def get_default_sampling_params(self) -> SamplingParams:
        return SamplingParams(temperature=0.5)

    def chat(self, messages: Any, sampling_params: Any = None, **others: Any) -> Iterator[Any]:
        self.messages, self.params = list(messages), sampling_params
        try:
            for text in self.texts:
                message = {"content": self.content, "reasoning_content": "hm"}
                choice = SimpleNamespace(
                    text=text, message=message, finish_reason=self.finish_reason, token_ids=[1]
                )
                yield SimpleNamespace(
                    outputs=[choice],
                    prompt_token_ids=[1, 2],
                    num_cached_tokens=None,
                    metrics=SimpleNamespace(first_token_latency=0.1),
                )
                self.go_on.wait(5)
        finally:
            self.was_left.set()


def says(text: str, *, thinking: str = "", finish_reason: str = "stop") -> Script:
    """A server's answer in a few pieces, thinking in a field of its own."""
    deltas = [{"reasoning_content": thinking}] if thinking else []
    deltas += [{"content": text[start : start + 20]} for start in range(0, len(text), 20)]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(deltas)}}
    return lambda body: [*chunks, end, usage, "[DONE]"]


def in_turn(*scripts: Script) -> Script:
    """The next request gets the next script, and the last one all that come after."""
    left = list(scripts)

    def script(body: dict[str, Any]) -> list[Any]:
        return (left.pop(0) if len(left) > 1 else left[0])(body)

    return script


def refuses(status: int) -> Script:
    return lambda body: [status]


def texts(messages: Sequence[dict[str, Any]]) -> str:
    """All that a model was told in one question."""
    return "\n".join(str(one["content"]) for one in messages)
