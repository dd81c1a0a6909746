"""How does a request's grammar become a state for its sequence, whatever the grammar is?

A grammar is first tried in another process (`grammar_check`), then compiled here on a thread, and kept:
the next request with the same text gets a copy.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence as Rows
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from attention_svc.grammar import GrammarState
from attention_svc.grammar_checker import TOO_COSTLY, GrammarChecker
from attention_svc.grammar_limits import (
    CACHED_BYTES,
    CACHED_GRAMMARS,
    CHECK_TIMEOUT_S,
    MAX_GRAMMAR_BYTES,
    MAX_WAITING,
    parser_limits,
)
from attention_svc.vocabulary import Vocabulary
from minimax_m2.chat.token_table import TokenTable
from protos import attention_pb2
from rpc.errors import Overloaded

_MAX_ERROR_CHARS = 300


class GrammarCompiler:
    """Compiled grammars, bounded in number and size. One loop's coroutines call it."""

    def __init__(self, folder: Path, vocabulary: Vocabulary):
        self._folder = folder
        self._vocabulary = vocabulary
        self._checker = GrammarChecker()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._tokens: _Tokens | None = None
        self._compiled: OrderedDict[bytes, tuple[LLMatcher, int]] = OrderedDict()

    async def start(
        self,
        grammar: attention_pb2.Grammar,
        *,
        end_of_thinking_id: int,
        emitted_ids: Rows[int],
        ignore_eos: bool,
    ) -> GrammarState:
        """The state after the tokens that were emitted already.

        Raises:
            ValueError: the grammar is not valid, too costly, or not what was emitted so far.
            Overloaded: too many grammars are being compiled.
        """
        matcher = await self._matcher(grammar)
        assert self._tokens is not None
        state = GrammarState(
            matcher,
            thinking_mask=self._tokens.thinking_mask,
            end_of_thinking_id=end_of_thinking_id,
            forbidden_ids=sorted(self._vocabulary.default_stops) if ignore_eos else (),
        )
        if not all(state.accept(token_id) for token_id in emitted_ids):
            raise ValueError("grammar: emitted_token_ids do not follow it")
        return state

    async def close(self) -> None:
        await self._checker.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _matcher(self, grammar: attention_pb2.Grammar) -> LLMatcher:
        if grammar.kind != attention_pb2.GRAMMAR_KIND_LARK:
            raise ValueError("grammar.kind must be LARK")
        if not self._vocabulary.has_tokens:
            raise ValueError("grammar: the checkpoint has no tokenizer.json, which grammars need")
        data = grammar.text.encode()
        if len(data) > MAX_GRAMMAR_BYTES:
            raise ValueError(f"grammar.text: at most {MAX_GRAMMAR_BYTES} bytes, got {len(data)}")
        key = hashlib.sha256(data).digest()
        self._drop_worn_out(key)
        if key not in self._compiled:
            if self._waiting >= MAX_WAITING:
                raise Overloaded("too many grammars are being compiled; try again later")
            self._waiting += 1
            try:
                async with self._lock:
                    if key not in self._compiled:
                        self._keep(key, await self._compile(grammar.text), len(data))
            finally:
                self._waiting -= 1
        self._compiled.move_to_end(key)
        return self._compiled[key][0].deep_copy()

    def _drop_worn_out(self, key: bytes) -> None:
        """Copies share their lexer: once it is over a limit, every new one is, and it must be made anew."""
        if key in self._compiled:
            probe = self._compiled[key][0].deep_copy()
            probe.compute_bitmask()
            if probe.is_error():
                del self._compiled[key]

    async def _compile(self, text: str) -> LLMatcher:
        error = await self._checker.check(text)
        if error:
            raise ValueError(f"grammar: {_first_line(error)}")
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._build, text)
        try:
            # Not bounded by the machine's load alone: the first one also reads the tokenizer.
            matcher, error = await asyncio.wait_for(work, 6 * CHECK_TIMEOUT_S)
        except TimeoutError:
            raise ValueError(f"grammar: {TOO_COSTLY}") from None
        if error:
            raise ValueError(f"grammar: {_first_line(error)}")
        return matcher

    def _build(self, text: str) -> tuple[LLMatcher, str]:
        """On the thread; llguidance lets go of the interpreter."""
        if self._tokens is None:
            self._tokens = _read_tokens(self._folder, self._vocabulary)
        matcher = LLMatcher(self._tokens.tokenizer, text, log_level=0, limits=parser_limits())
        return matcher, matcher.get_error() or _dead_end(matcher, self._tokens)

    def _keep(self, key: bytes, matcher: LLMatcher, size: int) -> None:
        self._compiled[key] = (matcher, size)
        while len(self._compiled) > CACHED_GRAMMARS or (
            len(self._compiled) > 1 and sum(s for _, s in self._compiled.values()) > CACHED_BYTES
        ):
            self._compiled.popitem(last=False)


@dataclass(frozen=True)
class _Tokens:
    """What llguidance knows of the tokenizer."""

    tokenizer: LLTokenizer
    thinking_mask: bytes
    blank_ids: frozenset[int]


class _TokenTable:
    """In the shape that llguidance asks for. Control tokens are none of any text."""

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
        """Any tokens of the text: nothing here depends on which."""
        return [self._id_of_byte[byte] for byte in text if byte in self._id_of_byte]


def _read_tokens(folder: Path, vocabulary: Vocabulary) -> _Tokens:
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
    return _Tokens(
        tokenizer=tokenizer,
        thinking_mask=np.packbits(thinking, bitorder="little").tobytes(),
        blank_ids=frozenset(blanks),
    )


def _dead_end(matcher: LLMatcher, tokens: _Tokens) -> str:
    """What is wrong with a grammar that accepts nothing, as one that only refers to itself."""
    probe = matcher.deep_copy()
    for _ in range(8):
        bits = np.frombuffer(probe.compute_bitmask(), np.uint8)
        ids = np.unpackbits(bits, bitorder="little").nonzero()[0].tolist()
        if probe.is_error() or not ids:
            return "it accepts no output"
        blank = [i for i in ids if i in tokens.blank_ids]
        if len(blank) < len(ids):
            return ""
        probe.consume_token(blank[0])
    return ""


def _first_line(error: str) -> str:
    """llguidance's reason without its excerpt and position in the grammar, which is not the caller's."""
    line = error.split("\n", 1)[0]
    position, separator, rest = line.partition(": ")
    if separator and position.startswith("at "):
        line = rest
    return line[:_MAX_ERROR_CHARS]
