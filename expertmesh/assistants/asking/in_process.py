"""How is an `LLM` of this process asked for a text? In a thread, which ends when nobody waits."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from expertmesh.agent.facade import ChatsLikeLLM, OfflineChat
from expertmesh.agent.loop.turn import Model, OnPiece
from expertmesh.assistants.asking.model import (
    Answer,
    Messages,
    Schema,
    answer_limit,
    nobody_watches,
)
from expertmesh.clients.chat import Piece, Reply
from expertmesh.clients.chat_stream import ChatError

_THINKING_ENDS = "</think>"


class InProcessModel:
    """An `LLM`, which stays open."""

    name = "in this process"

    def __init__(self, llm: ChatsLikeLLM, sampling: Mapping[str, Any]):
        """Raises ValueError for a setting that there is not."""
        self._llm = llm
        self._sampling = dict(sampling)
        self._params(None)
        self.max_model_len: int | None = llm.max_model_len

    async def ask(
        self,
        messages: Messages,
        *,
        schema: Schema | None = None,
        on_piece: OnPiece = nobody_watches,
    ) -> Answer:
        """The text is shown from the end of the thinking on, or at the end if there is none.

        A cancelled answer ends at its next token.
        """
        loop, is_left = asyncio.get_running_loop(), threading.Event()

        def tell(piece: Piece, reply: Reply) -> None:
            if not is_left.is_set():
                loop.call_soon_threadsafe(on_piece, piece, reply)

        work = (messages, self._params(schema), is_left, tell)
        try:
            return await asyncio.to_thread(self._read, *work)
        finally:
            is_left.set()

    def with_tools(self) -> Model:
        return OfflineChat(self._llm, self._sampling)

    def _read(
        self,
        messages: Messages,
        params: Any,
        is_left: threading.Event,
        tell: Callable[[Piece, Reply], None],
    ) -> Answer:
        from expertmesh.offline.checks import GenerationFailed

        started_s, told, output = time.monotonic(), "", None
        reply = Reply()
        try:
            stream = self._llm.chat(messages, params, stream=True)
            with contextlib.closing(stream):
                for output in stream:
                    if is_left.is_set():
                        raise ChatError("nobody waits for the answer any more")
                    text = _after_thinking(output.outputs[0].text)
                    if text.startswith(told) and text != told:
                        tell(Piece("content", text[len(told) :]), reply)
                        told = text
        except (ValueError, GenerationFailed) as error:
            raise ChatError(str(error)) from None
        if output is None:
            raise ChatError("the model gave no answer")
        choice = output.outputs[0]
        reply.reasoning = choice.message.get("reasoning_content") or ""
        reply.content = choice.message.get("content") or ""
        reply.finish_reason = choice.finish_reason
        reply.prompt_tokens = len(output.prompt_token_ids)
        reply.completion_tokens = len(choice.token_ids)
        reply.cached_tokens = output.num_cached_tokens or 0
        reply.first_token_s = output.metrics.first_token_latency
        reply.total_s = time.monotonic() - started_s
        if not told and reply.content:
            tell(Piece("content", reply.content), reply)
        return Answer(reply.content.strip(), reply.finish_reason != "stop", reply)

    def _params(self, schema: Schema | None) -> Any:
        params = self._llm.get_default_sampling_params()
        for name, value in {**answer_limit(self._llm.max_model_len), **self._sampling}.items():
            if not hasattr(params, name):
                raise ValueError(f"sampling: there is no {name}")
            setattr(params, name, value)
        if schema is not None:
            from expertmesh.offline.sampling_params import StructuredOutputsParams

            params.structured_outputs = StructuredOutputsParams(json=dict(schema))
        return params


def _after_thinking(text: str) -> str:
    """What has come of the answer itself; nothing for as long as that is not certain."""
    _, ends, rest = text.partition(_THINKING_ENDS)
    return rest.lstrip("\n") if ends else ""
