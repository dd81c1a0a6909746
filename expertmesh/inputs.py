"""Which forms may a prompt of `LLM.generate` have? A string, or one of these dictionaries."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict


class TextPrompt(TypedDict):
    """Text; what looks like a control token in it stays text."""

    prompt: str


class TokensPrompt(TypedDict):
    """Token ids, sent as they are."""

    prompt_token_ids: Sequence[int]
    prompt: NotRequired[str]
    """Only repeated in the output."""


class RenderedPrompt(str):
    """A conversation rendered as text that still knows its exact token ids.

    `get_tokenizer().apply_chat_template(..., tokenize=False)` gives one; `generate` sends the
    ids. Text taken out of it or added to it is plain text again, control tokens included.
    """

    token_ids: tuple[int, ...]

    def __new__(cls, text: str, token_ids: Sequence[int]) -> "RenderedPrompt":
        prompt = super().__new__(cls, text)
        prompt.token_ids = tuple(token_ids)
        return prompt


Prompt = str | TextPrompt | TokensPrompt | Sequence[int]
