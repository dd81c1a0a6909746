"""Which added tokens does a tokenizer.json declare, and are all needed markers among them?"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_TOKEN_ID = 2**24 - 1


@dataclass(frozen=True, kw_only=True)
class AddedToken:
    """One entry of tokenizer.json's `added_tokens`; `special` ones are skipped in output text."""

    token_id: int
    text: str
    special: bool


def parse_added_tokens(
    path: Path, tokenizer_json: Mapping[str, Any], markers: Collection[str] = ()
) -> dict[str, AddedToken]:
    """Added tokens by text.

    Args:
        path: the file, for messages only.
        markers: texts that must be among them, as the chat format's are.

    Raises:
        ValueError: one line naming `path`, for entries that cannot be served.
    """
    entries = tokenizer_json.get("added_tokens")
    if not isinstance(entries, list):
        raise ValueError(f"{path}: added_tokens must be a list")
    tokens: dict[str, AddedToken] = {}
    seen_ids: set[int] = set()
    for index, entry in enumerate(entries):
        token = _parse_entry(f"{path}: added_tokens[{index}]", entry, markers)
        if token.text in tokens or token.token_id in seen_ids:
            raise ValueError(f"{path}: added_tokens[{index}] repeats a token text or id")
        tokens[token.text] = token
        seen_ids.add(token.token_id)
    missing = [marker for marker in markers if marker not in tokens]
    if missing:
        raise ValueError(
            f"{path}: added_tokens lacks the chat format's markers {' '.join(missing)}"
        )
    return tokens


def read_vocab(path: Path, tokenizer_json: Mapping[str, Any]) -> dict[str, int]:
    """The model's vocabulary. Raises ValueError naming `path` for ids that cannot be served."""
    model = tokenizer_json.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict):
        raise ValueError(f"{path}: model.vocab must be an object")
    for token, token_id in vocab.items():
        if type(token_id) is not int or not 0 <= token_id <= MAX_TOKEN_ID:
            raise ValueError(f"{path}: model.vocab[{token!r:.40}] must be in 0..{MAX_TOKEN_ID}")
    return vocab


def _parse_entry(where: str, entry: Any, markers: Collection[str]) -> AddedToken:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object")
    token_id, text = entry.get("id"), entry.get("content")
    if not isinstance(token_id, int) or isinstance(token_id, bool):
        raise ValueError(f"{where}.id must be an integer")
    if not 0 <= token_id <= MAX_TOKEN_ID:
        raise ValueError(f"{where}.id must be in 0..{MAX_TOKEN_ID}, is {token_id}")
    if not isinstance(text, str) or not text:
        raise ValueError(f"{where}.content must be a non-empty string")
    # A token that takes in blanks beside it would make ids depend on more than its own text.
    for flag in ("lstrip", "rstrip", "single_word"):
        if text in markers and entry.get(flag):
            raise ValueError(f"{where}.{flag} is set for marker {text}, which is not supported")
    return AddedToken(token_id=token_id, text=text, special=entry.get("special") is True)
