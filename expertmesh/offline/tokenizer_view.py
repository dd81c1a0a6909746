"""What does `LLM.get_tokenizer()` return? Encode, decode and the chat template."""

from collections.abc import Sequence
from typing import Any

from expertmesh.inputs import RenderedPrompt
from expertmesh.offline.backend import Backend
from expertmesh.offline.loop_thread import LoopThread


class TokenizerView:
    """The tokenizer of the model or cluster, with the method names of Transformers."""

    def __init__(self, loop: LoopThread, backend: Backend):
        self._loop = loop
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: nothing in it becomes a control token, and none are added."""
        return self._loop.run(self._backend.encode(text, control_tokens=False)) if text else []

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the ids, including control tokens."""
        return self._loop.run(self._backend.decode(list(token_ids)))

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
