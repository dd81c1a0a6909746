"""What of a tokenizer do scripts use? `LLM.get_tokenizer()`: encode, decode, chat template."""

from collections.abc import Sequence
from typing import Any

from expertmesh.inputs import RenderedPrompt
from expertmesh.offline.backend import Backend
from expertmesh.offline.loop_thread import LoopThread


class TokenizerView:
    """The model's tokenizer, in this process or the cluster's; Transformers' method names."""

    def __init__(self, loop: LoopThread, backend: Backend):
        self._loop = loop
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: no control token, whatever it looks like, and none added."""
        return self._loop.run(self._backend.encode(text, control_tokens=False)) if text else []

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, control tokens written out."""
        return self._loop.run(self._backend.decode(list(token_ids)))

    def apply_chat_template(
        self,
        conversation: list[Any],
        tools: Sequence[Any] | None = None,
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
    ) -> list[int] | RenderedPrompt:
        """Ids of the conversation, or its text, which remembers them."""
        ids = self._loop.run(
            self._backend.render(
                conversation, tools or (), add_generation_prompt=add_generation_prompt
            )
        )
        return ids if tokenize else RenderedPrompt(self.decode(ids), ids)
