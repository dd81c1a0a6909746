"""Turns of a scripted model that calls tools."""

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer, tool_answer
from tests.support.gateway.fake_attention import Script, length, say, tokens
from tests.support.gateway.model import EOS

_STEP = 50
"""Token ids in one event: a test of the loop has no use for more events."""


class Scripts:
    """Makes scripts for a tokenizer's model."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    def calls(self, *invokes: str) -> Script:
        return say(tool_answer(self.tokenizer, *invokes), eos=EOS, step=_STEP)

    def final(self, answer: str, thinking: str = "done") -> Script:
        return say(thinking_answer(self.tokenizer, thinking, answer), eos=EOS, step=_STEP)

    def cut(self, *invokes: str, drop: int = 20) -> Script:
        """Ends at max_tokens within the last call."""
        ids = tool_answer(self.tokenizer, *invokes)[:-drop]
        return lambda request: [tokens(0, ids), length(len(ids))]
