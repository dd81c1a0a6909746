"""How is a tokenizer built that knows no added token?

tokenizer.json is copied without `added_tokens`. Trainers often list those in the model's own
vocabulary too, so their ids are removed there as well, with the merges that lead to or from
them. After that, no text can give such an id.
"""

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import tokenizers

from moe_model.text.added_tokens import AddedToken, read_vocab
from moe_model.text.byte_level import CHARACTER_OF_BYTE, token_bytes
from moe_model.text.unicode_text import strings_in

_MAX_PATTERN_CHARS = 8192


def build_plain_tokenizer(
    path: Path, content: Mapping[str, Any], added_tokens: Mapping[str, AddedToken]
) -> tuple[dict[str, int], tokenizers.Tokenizer]:
    """Vocabulary without added tokens, and the tokenizer over it.

    Args:
        path: the file, for messages only.
        content: tokenizer.json, parsed.
        added_tokens: its added tokens by text.

    Raises:
        ValueError: one line naming the file, when it is not a complete byte-level BPE.
    """
    if content.get("version") != "1.0":
        raise ValueError(f"{path}: version must be '1.0', is {content.get('version')!r:.40}")
    full_vocab = _check_model(path, content)
    vocab = _without_added(path, full_vocab, added_tokens)
    removed = full_vocab.keys() - vocab.keys()
    merges = [pair for pair in content["model"]["merges"] if not _uses(_parts(path, pair), removed)]
    plain = {
        **content,
        "model": {**content["model"], "vocab": vocab, "merges": merges, "unk_token": None},
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    without_merges = {**content, "model": {**content["model"], "merges": []}}  # ids stay the same
    _check_added_ids(path, _from_json(path, without_merges), added_tokens)
    return vocab, _from_json(path, plain)


def _from_json(path: Path, content: Mapping[str, Any]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises bare Exception
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: refused by the tokenizers library ({reason:.200})") from error


def _check_added_ids(
    path: Path, ordinary: tokenizers.Tokenizer, added_tokens: Mapping[str, AddedToken]
) -> None:
    """Refuse ids that the library would silently renumber: which are right is unknown."""
    for token in added_tokens.values():
        actual = ordinary.token_to_id(token.text)
        if actual != token.token_id:
            raise ValueError(
                f"{path}: added token {token.text!r:.40} has id {token.token_id}, "
                f"but the tokenizers library numbers it {actual}"
            )


def _check_model(path: Path, content: Mapping[str, Any]) -> dict[str, int]:
    """The BPE vocabulary, after checks that the file is a complete byte-level BPE."""
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise ValueError(f"{path}: model.type must be BPE")
    vocab = read_vocab(path, content)
    if not isinstance(model.get("merges"), list):
        raise ValueError(f"{path}: model.merges must be a list")
    if len(set(vocab.values())) != len(vocab):
        raise ValueError(f"{path}: model.vocab gives two tokens the same id")
    for part in ("pre_tokenizer", "decoder"):
        if not _mentions_byte_level(content.get(part)):
            raise ValueError(f"{path}: {part} must be byte-level")
    patterns = strings_in([content.get("pre_tokenizer"), content.get("normalizer")])
    if any(len(pattern) > _MAX_PATTERN_CHARS for pattern in patterns):
        raise ValueError(f"{path}: a pattern is longer than {_MAX_PATTERN_CHARS} characters")
    return vocab


def _without_added(
    path: Path, vocab: Mapping[str, int], added_tokens: Mapping[str, AddedToken]
) -> dict[str, int]:
    """The vocabulary less the added tokens, which trainers often list in it as well."""
    text_of_id = {token.token_id: token.text for token in added_tokens.values()}
    kept: dict[str, int] = {}
    for token, token_id in vocab.items():
        if token_id not in text_of_id:
            kept[token] = token_id
        elif text_of_id[token_id] not in (token, token_bytes(token).decode("utf-8", "replace")):
            raise ValueError(f"{path}: id {token_id} is both {token!r:.40} and an added token")
    missing = [byte for byte, character in CHARACTER_OF_BYTE.items() if character not in kept]
    if missing:
        raise ValueError(f"{path}: model.vocab lacks {len(missing)} of the 256 byte tokens")
    return kept


def _parts(path: Path, pair: Any) -> list[str]:
    """Both halves of a merge, written as "a b" or as ["a", "b"]."""
    parts = pair.split(" ") if isinstance(pair, str) else pair
    is_pair = isinstance(parts, list) and len(parts) == 2
    if not is_pair or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"{path}: model.merges must hold pairs of tokens")
    return parts


def _uses(parts: list[str], removed: Set[str]) -> bool:
    """Whether a merge joins or makes a removed token."""
    return bool(removed) and not removed.isdisjoint((*parts, "".join(parts)))


def _mentions_byte_level(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    children = [*_as_list(part.get("pretokenizers")), *_as_list(part.get("decoders"))]
    return part.get("type") == "ByteLevel" or any(
        isinstance(child, dict) and child.get("type") == "ByteLevel" for child in children
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
