"""Which forms can a prompt of `LLM.generate` have? A string, or one of these dictionaries."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict


class TextPrompt(TypedDict):
    """Text, in which what looks like a control token stays text."""

    prompt: str


class TokensPrompt(TypedDict):
    """Token ids, used as they are."""

    prompt_token_ids: Sequence[int]
    prompt: NotRequired[str]
    """Only copied to the output."""


class RenderedPrompt(str):
    """A conversation rendered as text, together with its exact token ids.

    `get_tokenizer().apply_chat_template(..., tokenize=False)` returns one; `generate` uses the
    ids. Any text cut from it or combined with it is plain text, including its control tokens.
    """

    token_ids: tuple[int, ...]

    def __new__(cls, text: str, token_ids: Sequence[int]) -> "RenderedPrompt":
        prompt = super().__new__(cls, text)
        prompt.token_ids = tuple(token_ids)
        return prompt


Prompt = str | TextPrompt | TokensPrompt | Sequence[int]
