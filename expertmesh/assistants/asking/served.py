"""How is a server asked for a text? By the agent's client; JSON is forced where that is offered."""

from collections.abc import Mapping
from typing import Any

from expertmesh.agent.loop.answers import answer_text
from expertmesh.agent.loop.turn import Model, OnPiece, ServedChat
from expertmesh.assistants.asking.model import (
    Answer,
    Messages,
    OnWait,
    Schema,
    answer_limit,
    nobody_watches,
)
from expertmesh.clients.chat import Reply
from expertmesh.clients.chat_stream import ChatStream, RefusedError, ServedModel

_NOT_OFFERED = (400, 404, 422, 501)
"""With one of these a server refuses a field that it does not know."""


class ServedText:
    """A model behind an OpenAI-style server; `aclose` it."""

    def __init__(
        self, chat: ChatStream, served: ServedModel, sampling: Mapping[str, Any], on_wait: OnWait
    ):
        self.name = served.name
        self.max_model_len = served.max_model_len
        self._chat = chat
        self._settings = {"model": served.name, **sampling}
        self._on_wait = on_wait
        self._forces_json = True

    @classmethod
    async def connect(
        cls,
        base_url: str,
        api_key: str | None,
        name: str | None,
        sampling: Mapping[str, Any],
        on_wait: OnWait,
    ) -> "ServedText":
        """Raises ChatError, and ValueError for an impossible URL or key."""
        chat = ChatStream(base_url, api_key)
        try:
            return cls(chat, await chat.served_model(name), sampling, on_wait)
        except BaseException:
            await chat.close()
            raise

    async def aclose(self) -> None:
        await self._chat.close()

    async def ask(
        self,
        messages: Messages,
        *,
        schema: Schema | None = None,
        on_piece: OnPiece = nobody_watches,
    ) -> Answer:
        """A server that refuses the schema is asked without it, from then on."""
        if schema is not None and self._forces_json:
            form = {"name": "answer", "strict": True, "schema": dict(schema)}
            forced = {"response_format": {"type": "json_schema", "json_schema": form}}
            try:
                return _answer(await self._ask(messages, forced, on_piece))
            except RefusedError as error:
                if error.status not in _NOT_OFFERED or error.is_too_long:
                    raise
            answer = _answer(await self._ask(messages, {}, on_piece))
            self._forces_json = False
            return answer
        return _answer(await self._ask(messages, {}, on_piece))

    def with_tools(self) -> Model:
        return ServedChat(self._chat, self._settings, on_wait=self._on_wait)

    async def _ask(
        self, messages: Messages, besides: Mapping[str, Any], on_piece: OnPiece
    ) -> Reply:
        settings = {**answer_limit(self.max_model_len), **self._settings, **besides}
        chat = ServedChat(self._chat, settings, on_wait=self._on_wait)
        return await chat.ask(messages, [], on_piece)


def _answer(reply: Reply) -> Answer:
    return Answer(answer_text(reply.content), reply.finish_reason != "stop", reply)
