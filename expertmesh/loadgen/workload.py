"""Which prompts are sent? Random ones of given lengths, or conversations from a file."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 2**31

_WORDS = (
    "time year people way day man thing woman life child world school state family student "
    "group country problem hand part place case week company system program question work "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game "
    "line end member law car city name team minute idea body back parent face other level "
    "office door health person art war history party result change morning reason research girl "
    "guy moment air teacher force "
)
WORDS = tuple(_WORDS.split())
"""Common words for random prompts: about one token each in any tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One request: its token ids or text, and the length of the answer."""

    output_len: int
    text: str = ""
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns in order; each is sent together with those before it."""

    turns: tuple[Turn, ...]
    system: str = ""


@dataclass(frozen=True, kw_only=True)
class RandomShape:
    """Lengths of random prompts in tokens, each drawn within `range_ratio` of its mean."""

    input_len: int = 128
    output_len: int = 64
    prefix_len: int = 0
    """Tokens with which all prompts begin, in addition to input_len."""
    range_ratio: float = 0.0
    turns: int = 1

    def __post_init__(self) -> None:
        if self.input_len < 1 or self.output_len < 1 or self.turns < 1 or self.prefix_len < 0:
            raise ValueError(
                "random lengths: input, output and turns at least 1, prefix at least 0"
            )
        if not 0 <= self.range_ratio < 1:
            raise ValueError(f"--random-range-ratio: 0 to below 1, got {self.range_ratio:g}")


def random_conversations(
    shape: RandomShape, count: int, seed: int, ids: Sequence[int] = ()
) -> list[Conversation]:
    """Conversations with prompts drawn from `ids`; equal seeds give equal ones.

    Without `ids`, or with several turns, the prompts are words: about as many tokens, not exactly.
    """
    numbers = random.Random(seed)
    as_ids = bool(ids) and shape.turns == 1
    pool: Sequence[Any] = ids if as_ids else WORDS
    prefix = numbers.choices(pool, k=shape.prefix_len)

    def turn(first: bool) -> Turn:
        body = numbers.choices(pool, k=_around(shape.input_len, shape.range_ratio, numbers))
        output_len = _around(shape.output_len, shape.range_ratio, numbers)
        drawn = prefix + body if first else body
        if as_ids:
            return Turn(ids=tuple(drawn), output_len=output_len)
        return Turn(text=" ".join(drawn), output_len=output_len)

    return [
        Conversation(turns=tuple(turn(i == 0) for i in range(shape.turns))) for _ in range(count)
    ]


def file_conversations(
    path: Path, count: int, seed: int, *, output_len: int, multi_turn: bool
) -> list[Conversation]:
    """Read JSON or JSON lines; entries are shuffled, and repeated if too few. Raises ValueError.

    An entry is {"prompt": text}, {"messages": [...]} or ShareGPT's {"conversations": [{"from",
    "value"}]}; it may have its own `output_len`. With `multi_turn` all user turns of a conversation
    are asked, else the first.
    """
    found = []
    for place, entry in _entries(path):
        conversation = _conversation(entry, output_len, multi_turn)
        if conversation is None:
            raise ValueError(
                f"{path}:{place}: no prompt, messages or conversations with a user turn"
            )
        found.append(conversation)
    if not found:
        raise ValueError(f"{path}: has no entry")
    random.Random(seed).shuffle(found)
    return [found[index % len(found)] for index in range(count)]


def _around(length: int, ratio: float, numbers: random.Random) -> int:
    low, high = round(length * (1 - ratio)), round(length * (1 + ratio))
    return max(1, numbers.randint(low, high))


def _entries(path: Path) -> list[tuple[int, Any]]:
    """(line or position, entry) of a JSON list or of JSON lines."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--dataset {path}: {error}") from None
    try:
        if text.lstrip().startswith("["):
            return list(enumerate(json.loads(text), 1))
        lines = enumerate(text.splitlines(), 1)
        return [(number, json.loads(line)) for number, line in lines if line.strip()]
    except ValueError as error:
        raise ValueError(f"--dataset {path}: not JSON or JSON lines ({error})") from None


def _conversation(entry: Any, output_len: int, multi_turn: bool) -> Conversation | None:
    if not isinstance(entry, dict):
        return None
    length = entry.get("output_len", output_len)
    if not isinstance(length, int) or length < 1:
        return None
    if isinstance(entry.get("prompt"), str):
        return Conversation(turns=(Turn(text=entry["prompt"], output_len=length),))
    pairs = _pairs(entry)
    system = "\n".join(text for role, text in pairs if role == "system")
    asked = [Turn(text=text, output_len=length) for role, text in pairs if role == "user"]
    if not asked:
        return None
    return Conversation(turns=tuple(asked if multi_turn else asked[:1]), system=system)


_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant"}


def _pairs(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """(role, text) of each message with text."""
    messages = entry.get("messages") or entry.get("conversations") or []
    pairs = []
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict):
            role = str(message.get("role") or message.get("from") or "")
            text = message.get("content") or message.get("value")
            if isinstance(text, str) and text:
                pairs.append((_ROLES.get(role, role), text))
    return pairs
