"""What does llguidance need to know about the checkpoint's tokens?"""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer, TokenizerWrapper

from attention_svc.vocabulary import Vocabulary
from moe_model.text.token_table import TokenTable


@dataclass(frozen=True, kw_only=True)
class GrammarTokens:
    """Read once, for the first grammar."""

    tokenizer: LLTokenizer
    taker: "Taker"
    thinking_mask: bytes
    """A bit per id that thinking may contain, without the id that ends it."""
    blank_ids: frozenset[int]

    @classmethod
    def read(cls, folder: Path, vocabulary: Vocabulary) -> "GrammarTokens":
        table = TokenTable.load(folder)
        tokenizer = LLTokenizer(
            TokenizerWrapper(_TokenTable(table, vocabulary)),
            n_vocab=vocabulary.size,
            eos_token=sorted(vocabulary.default_stops),
            slices=LLTokenizer.json_slices(),
        )
        thinking = np.zeros(vocabulary.size, np.uint8)
        thinking[: len(table.bytes_of_id)] = [data is not None for data in table.bytes_of_id]
        thinking[sorted({*table.added_ids.values(), *vocabulary.default_stops})] = 0
        blanks = (
            i for i, data in enumerate(table.bytes_of_id) if data is not None and not data.strip()
        )
        return cls(
            tokenizer=tokenizer,
            taker=Taker(tokenizer),
            thinking_mask=np.packbits(thinking, bitorder="little").tobytes(),
            blank_ids=frozenset(blanks),
        )

    def dead_end(self, matcher: LLMatcher) -> str:
        """Why a grammar accepts nothing, such as one that only refers to itself; or ""."""
        probe = matcher.deep_copy()
        for _ in range(8):
            bits = np.frombuffer(probe.compute_bitmask(), np.uint8)
            ids = np.unpackbits(bits, bitorder="little").nonzero()[0].tolist()
            if probe.is_error() or not ids:
                return "it accepts no output"
            blank = [i for i in ids if i in self.blank_ids]
            if len(blank) < len(ids):
                return ""
            self.taker.take(probe, blank[0])
        return ""


class Taker:
    """Lets matchers take tokens without the interpreter's lock, on any thread.

    `LLMatcher.consume_token` holds the lock however long it takes, even while it waits for another
    copy of the grammar. llguidance releases it only for several matchers at once: hence a second
    one, with an empty grammar, which takes its end token.
    """

    def __init__(self, tokenizer: LLTokenizer):
        self._own = threading.local()  # an executor per thread: no thread waits for another's token
        self._nothing = LLMatcher(tokenizer, 'start: ""', log_level=0)
        self._end_id = tokenizer.eos_token

    def take(self, matcher: LLMatcher, token_id: int) -> bool:
        """Whether the grammar allows it; otherwise the matcher stays in error."""
        executor: LLExecutor | None = getattr(self._own, "executor", None)
        if executor is None:
            executor = self._own.executor = LLExecutor(num_threads=1)
        both = [(matcher, token_id), (self._nothing.deep_copy(), self._end_id)]
        return executor.consume_token_par(both)[0]


class _TokenTable:
    """In the form that llguidance wants. No text becomes a control token."""

    bos_token_id = None

    def __init__(self, table: TokenTable, vocabulary: Vocabulary):
        control_ids = set(table.added_ids.values())
        listed = [
            b"" if data is None else b"\xff" + data if token_id in control_ids else data
            for token_id, data in enumerate(table.bytes_of_id)
        ]
        self.tokens = listed + [b""] * (vocabulary.size - len(listed))
        self.special_token_ids = sorted(control_ids)
        self.eos_token_id = min(vocabulary.default_stops)
        self._id_of_byte = {
            data[0]: i for i, data in enumerate(table.bytes_of_id) if data and len(data) == 1
        }

    def __call__(self, text: bytes) -> list[int]:
        """Some tokens that spell the text: it does not matter which."""
        return [self._id_of_byte[byte] for byte in text if byte in self._id_of_byte]
