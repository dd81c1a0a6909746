"""What does `LLM.get_tokenizer()` return? Encode, decode and the chat template."""

from collections.abc import Sequence
from typing import Any

from expertmesh.inputs import RenderedPrompt
from expertmesh.offline.backend import Backend
from expertmesh.offline.loop_thread import LoopThread


class TokenizerView:
    """The tokenizer of the model or cluster, with the names of Transformers."""

    def __init__(self, loop: LoopThread, backend: Backend):
        self._loop = loop
        self._backend = backend

    @property
    def bos_token_id(self) -> int | None:
        """None: the checkpoint has none, or an older server does not tell."""
        return self._backend.bos_token_id

    @property
    def eos_token_id(self) -> int | None:
        """What ends an answer; the smallest one if there are several. None as above."""
        return self._backend.eos_token_id

    @property
    def bos_token(self) -> str | None:
        """The text of `bos_token_id`."""
        return self._text_of(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        """The text of `eos_token_id`."""
        return self._text_of(self.eos_token_id)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of plain text: nothing in it becomes a control token.

        `add_special_tokens` has no effect: the chat template adds them, the tokenizer none.
        """
        return self._loop.run(self._backend.encode(text, control_tokens=False)) if text else []

    def decode(self, token_ids: int | Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of the ids; `skip_special_tokens`: without the markers of turns."""
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        if skip_special_tokens:
            ids = [one for one in ids if one not in self._backend.special_ids]
        return self._loop.run(self._backend.decode(ids)) if ids else ""

    def apply_chat_template(
        self,
        conversation: list[Any],
        tools: Sequence[Any] | None = None,
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
    ) -> list[int] | RenderedPrompt:
        """Ids of the conversation, or its text as a RenderedPrompt, which keeps the ids."""
        ids = self._loop.run(
            self._backend.render(
                conversation, tools or (), add_generation_prompt=add_generation_prompt
            )
        )
        return ids if tokenize else RenderedPrompt(self.decode(ids), ids)

    def _text_of(self, token_id: int | None) -> str | None:
        return None if token_id is None else self.decode(token_id)
