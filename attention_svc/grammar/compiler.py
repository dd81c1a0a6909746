"""How does a request's grammar become a state for its sequence, however costly it is?

A new grammar waits for its client's turn at one of a few slots. It is compiled in another process
first (`child.py`), which is killed if that takes too much; only what was cheap there is compiled
here, on a thread. Compiled grammars are kept, and the next request with the same text gets a copy;
refusals are remembered.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence as Rows
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llguidance import LLMatcher

from attention_svc.grammar.cache import Compiled, GrammarCache
from attention_svc.grammar.checker import GrammarChecker
from attention_svc.grammar.limits import (
    COMPILE_SLOTS,
    MASK_THREADS,
    MAX_WAITING,
    parser_limits,
)
from attention_svc.grammar.shared_threads import SharedThreads
from attention_svc.grammar.state import GrammarState
from attention_svc.grammar.tokens import GrammarTokens
from attention_svc.vocabulary import Vocabulary
from protos import attention_pb2
from rpc.config import MAX_GRAMMAR_BYTES
from rpc.errors import Mismatch, Overloaded
from rpc.fair_shares import FairSlots

_MAX_ERROR_CHARS = 300
_POSITION = re.compile(r"^at (\d+)\(\d+\): ")


class GrammarCompiler:
    """All grammars of a service. Used from one event loop."""

    def __init__(self, folder: Path, vocabulary: Vocabulary):
        self._folder = folder
        self._vocabulary = vocabulary
        self.slots = FairSlots(COMPILE_SLOTS, max_waiting=MAX_WAITING, what="grammars")
        self._checkers = [GrammarChecker(vocabulary.size) for _ in range(COMPILE_SLOTS)]
        self._threads = ThreadPoolExecutor(COMPILE_SLOTS, thread_name_prefix="grammar")
        self._replays = SharedThreads(MASK_THREADS, name="grammar-replay")
        self._running: set[asyncio.Task[Compiled | str | Overloaded]] = set()
        self._reading = asyncio.Lock()
        self._tokens: GrammarTokens | None = None
        self.cache = GrammarCache()

    async def start(
        self,
        request: attention_pb2.GenerateRequest,
        *,
        emitted_ids: Rows[int],
        ignore_eos: bool,
    ) -> GrammarState:
        """The state after the tokens emitted so far.

        Raises:
            ValueError: the grammar is not valid, too costly, or not what was emitted so far.
            Mismatch: `grammar_id` is not known.
            Overloaded: too many grammars are being compiled.
        """
        compiled = await self._compiled(request)
        assert self._tokens is not None
        state = GrammarState(
            compiled.matcher.deep_copy(),
            taker=self._tokens.taker,
            cost=compiled.cost,
            thinking_mask=self._tokens.thinking_mask,
            end_of_thinking_id=request.end_of_thinking_id,
            forbidden_ids=sorted(self._vocabulary.default_stops) if ignore_eos else (),
            on_worn_out=compiled.wear_out,
        )
        if emitted_ids and not await self._replays.run(
            request.client_id, lambda: state.accept_all(emitted_ids)
        ):
            raise ValueError("grammar: it does not allow emitted_token_ids")
        return state

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for checker in self._checkers:
            await checker.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._replays.close()

    async def _compiled(self, request: attention_pb2.GenerateRequest) -> Compiled:
        if not self._vocabulary.has_tokens:
            raise ValueError("grammar: the checkpoint has no tokenizer.json, which grammars need")
        if not request.HasField("grammar"):
            known = self.cache.compiled(request.grammar_id)
            if known is None:
                raise Mismatch("grammar_id is not known to this service; send the grammar")
            return known
        if request.grammar.kind != attention_pb2.GRAMMAR_KIND_LARK:
            raise ValueError("grammar.kind must be LARK")
        text = request.grammar.text
        data = text.encode()
        if len(data) > MAX_GRAMMAR_BYTES:
            raise ValueError(f"grammar.text: at most {MAX_GRAMMAR_BYTES} bytes, got {len(data)}")
        digest = hashlib.sha256(data).digest()
        compiled: Compiled | str | Overloaded | None = self.cache.known(digest)
        if compiled is None:
            await self.slots.acquire(request.client_id)
            # It goes on even when its request is cancelled, and keeps the slot until it ends.
            work = asyncio.create_task(self._work(request.client_id, digest, text, len(data)))
            self._running.add(work)
            work.add_done_callback(self._running.discard)
            compiled = await asyncio.shield(work)
        if isinstance(compiled, Overloaded):
            raise compiled
        if isinstance(compiled, str):
            raise ValueError(f"grammar: {compiled}")
        return compiled

    async def _work(
        self, client: str, digest: bytes, text: str, size_bytes: int
    ) -> Compiled | str | Overloaded:
        """The work in a slot. The compiled grammar, or why there is none."""
        checker = self._checkers.pop()
        try:
            # Another request may have sent the same one in the meantime.
            known = self.cache.known(digest)
            if known is not None:
                return known
            matcher, refusal = await self._compile(checker, text)
            if matcher is None:
                self.cache.refuse(digest, refusal)
                return refusal
            compiled = Compiled(matcher, size_bytes)
            self.cache.keep(digest, compiled)
            return compiled
        except Overloaded as error:
            return error
        finally:
            self._checkers.append(checker)
            self.slots.release(client)

    async def _compile(self, checker: GrammarChecker, text: str) -> tuple[LLMatcher | None, str]:
        """(the matcher, "") or (None, why it is refused)."""
        loop = asyncio.get_running_loop()
        async with self._reading:
            if self._tokens is None:
                self._tokens = await loop.run_in_executor(
                    self._threads, GrammarTokens.read, self._folder, self._vocabulary
                )
        matcher, refusal = None, await checker.check(text)
        if not refusal:
            matcher, refusal = await loop.run_in_executor(self._threads, _build, self._tokens, text)
        return matcher, _first_line(refusal)


def _build(tokens: GrammarTokens, text: str) -> tuple[LLMatcher | None, str]:
    """On a thread; llguidance releases the interpreter's lock while it compiles."""
    matcher = LLMatcher(tokens.tokenizer, text, log_level=0, limits=parser_limits())
    error = matcher.get_error() or tokens.dead_end(matcher)
    return (None, error) if error else (matcher, "")


def _first_line(error: str) -> str:
    """llguidance's reason without its excerpt of the grammar: "line 6: what is wrong"."""
    line = _POSITION.sub(r"line \1: ", error.split("\n", 1)[0])
    return line[:_MAX_ERROR_CHARS]
