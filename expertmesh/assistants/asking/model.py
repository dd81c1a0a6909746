"""How does an assistant ask a model for a text? `TextModel`, and what an answer holds.

Its two kinds are behind a server (`served.py`) and an `LLM` in this process (`in_process.py`);
`open_model` makes either.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from expertmesh.agent.facade import ChatsLikeLLM
from expertmesh.agent.loop.turn import Model, OnPiece
from expertmesh.clients.chat import Piece, Reply

Messages = list[dict[str, Any]]
Schema = Mapping[str, Any]
OnWait = Callable[[float, str], None]


MOST_ANSWER_TOKENS = 16_384


def answer_limit(max_model_len: int | None) -> dict[str, int]:
    """How long an answer may be if nobody says so: a small model may never end one by itself."""
    return (
        {} if max_model_len is None else {"max_tokens": min(MOST_ANSWER_TOKENS, max_model_len // 4)}
    )


def nobody_watches(piece: Piece, reply: Reply) -> None:
    """For questions whose answers are not shown while they come."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    text: str
    """Without thinking."""
    was_cut: bool
    """It ended at a limit of tokens, and not by itself."""
    reply: Reply
    """With thinking, counts and seconds."""


class TextModel(Protocol):
    """Answers conversations, one at a time."""

    name: str
    max_model_len: int | None
    """Tokens of prompt and answer together; None where nobody knows."""

    async def ask(
        self,
        messages: Messages,
        *,
        schema: Schema | None = None,
        on_piece: OnPiece = nobody_watches,
    ) -> Answer:
        """One answer; `on_piece` sees thinking and text as they come.

        `schema`: of JSON that the answer must be, where the server can force that; it is checked
        by nobody here (`structured.py` does). Cancelling ends the request. Raises ChatError.
        """
        ...

    def with_tools(self) -> Model:
        """The same model for the agent's loop."""
        ...


@contextlib.asynccontextmanager
async def open_model(
    where: str | ChatsLikeLLM,
    *,
    api_key: str | None = None,
    name: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    on_wait: OnWait = lambda seconds, reason: None,
) -> AsyncIterator[TextModel]:
    """The model behind a base URL, or of an `LLM`.

    `sampling`: temperature, top_p, max_tokens and the like, by their names in the API, for every
    question. `on_wait` hears that a busy server is asked again. Raises ChatError if the server
    cannot be asked for its model, ValueError for a URL, key or setting that is none.
    """
    from expertmesh.assistants.asking.in_process import InProcessModel
    from expertmesh.assistants.asking.served import ServedText

    if not isinstance(where, str):
        yield InProcessModel(where, sampling or {})
        return
    served = await ServedText.connect(where, api_key, name, sampling or {}, on_wait)
    async with contextlib.aclosing(served):
        yield served
