"""How do conversations become batches of packed rows?

A batch is a function of (seed, index) alone, so any number of worker processes produce
the same data, and a resumed training run continues where it stopped.
"""

import multiprocessing
import os
import random
import signal
import sys
import traceback
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
from tokenizers import Tokenizer

from demo_model import chat
from demo_model.conversation import make
from demo_model.draw import Draw
from demo_model.phrasings import LANGUAGES
from demo_model.programs import catalogue

NO_LABEL = -100
BATCH_WAIT_S = 45.0
"""How long the next batch is waited for."""
CONVERSATION_CPU_S = 2.0
"""CPU time after which a conversation counts as endless; most take less than 3 ms."""
MOST_LEFT_OUT = 10
"""Conversations that are left out of one batch before it counts as faulty."""

Encoded = tuple[list[int], list[bool]]
"""(token ids, for each whether the model is trained to write it)."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed conversations: R rows of T tokens. Each conversation starts at position 0."""

    tokens_RT: np.ndarray
    """int16 token ids"""
    labels_RT: np.ndarray
    """int16, the token that should come next, or NO_LABEL"""
    documents_RT: np.ndarray
    """int16, number of the conversation in its row, which attention does not cross; -1: padding"""
    positions_RT: np.ndarray
    """int16"""


def token_id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return int(found)


class Encoder:
    """Turns text into ids exactly as the gateway's tokenizer does, segment by segment."""

    def __init__(self, tokenizer_file: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.newline = self.tokenizer.encode("\n", add_special_tokens=False).ids

    def encode(self, segments: list[chat.Segment]) -> Encoded:
        ids: list[int] = []
        written: list[bool] = []
        pieces: list[str] = []
        marks: list[bool] = []
        for text, is_model in segments:
            for piece in text.split(chat.TOKEN_BORDER):
                if piece:
                    pieces.append(piece)
                    marks.append(is_model)
        encodings = self.tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        for encoding, mark in zip(encodings, marks, strict=True):
            ids += encoding.ids
            written += [mark] * len(encoding.ids)
        return ids, written


def build(encoder: Encoder, seed: int, index: int, rows: int, length: int) -> Batch:
    """Batch number `index`: conversations drawn until the rows are full."""
    documents: list[Encoded] = []
    total = 0
    for conversation in conversations(seed, index):
        encoded = encoder.encode(chat.render(conversation))
        if len(encoded[0]) <= length:
            documents.append(encoded)
            total += len(encoded[0])
        if total >= rows * length:
            break
    return pack(documents, rows, length)


def conversations(seed: int, index: int) -> Iterator[chat.Conversation]:
    """Those of one batch, without end.

    One that a generator fails to make, or takes too long for, is told and left out: it must not end
    a run that has its machine for minutes. Raises the error once there are more than MOST_LEFT_OUT.
    """
    catalogue.pairs()  # once, and not in any conversation's time
    rng = random.Random(f"{seed}-{index}")
    left_out = 0
    while True:
        try:
            with _limited_cpu(CONVERSATION_CPU_S):
                made = make(Draw(rng=rng, language=rng.choice(LANGUAGES)))
        except (Exception, _EndlessError) as error:
            left_out += 1
            if left_out > MOST_LEFT_OUT:
                raise
            print(f"batch {index} of seed {seed}: a conversation is left out:", file=sys.stderr)
            traceback.print_exception(error)
            rng = random.Random(f"{seed}-{index}-{left_out}")  # where that one stopped may vary
        else:
            yield made


def pack(documents: list[Encoded], rows: int, length: int) -> Batch:
    """Put the longest first into the first row with room; drop those that fit nowhere."""
    tokens = np.zeros((rows, length), np.int16)
    labels = np.full((rows, length), NO_LABEL, np.int16)
    owner = np.full((rows, length), -1, np.int16)
    positions = np.zeros((rows, length), np.int16)
    used = [0] * rows
    count = [0] * rows
    first = 0
    for ids, written in sorted(documents, key=lambda document: -len(document[0])):
        size = len(ids)
        while first < rows and used[first] > length - 8:
            first += 1
        for row in range(first, rows):
            start = used[row]
            if start + size <= length:
                tokens[row, start : start + size] = ids
                target = np.array(ids[1:], np.int16)
                labels[row, start : start + size - 1] = np.where(written[1:], target, NO_LABEL)
                owner[row, start : start + size] = count[row]
                positions[row, start : start + size] = np.arange(size)
                used[row] += size
                count[row] += 1
                break
    return Batch(tokens_RT=tokens, labels_RT=labels, documents_RT=owner, positions_RT=positions)


_encoder: Encoder | None = None


def _start_worker(tokenizer_file: Path) -> None:
    global _encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(tokenizer_file)


def _build_in_worker(seed: int, index: int, rows: int, length: int) -> Batch:
    assert _encoder is not None
    try:
        return build(_encoder, seed, index, rows, length)
    except _EndlessError as error:
        raise RuntimeError(
            f"batch {index} of seed {seed}: {MOST_LEFT_OUT + 1} conversations took more than "
            f"{CONVERSATION_CPU_S:g} s of CPU time each: the tracebacks say which generator does "
            "not end"
        ) from error


class _EndlessError(BaseException):
    """Not an Exception: generators catch those that the programs they run raise."""


@contextmanager
def _limited_cpu(seconds: float) -> Iterator[None]:
    """Raises _EndlessError once this process has computed for so long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _EndlessError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def stream(
    tokenizer_file: Path, *, seed: int, rows: int, length: int, workers: int, first: int = 0
) -> Generator[Batch, None, None]:
    """Batches first, first + 1, ... without end, made ahead by worker processes.

    Raises RuntimeError for a batch that is not made in time: all later ones wait for it.
    """
    catalogue.pairs()  # once, before the workers are forked
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(tokenizer_file,)
    ) as pool:
        waiting: deque[Future[Batch]] = deque()
        index = first
        others = set(multiprocessing.active_children())
        started: set[multiprocessing.process.BaseProcess] = set()
        try:
            while True:
                while len(waiting) < 6 * workers:
                    waiting.append(pool.submit(_build_in_worker, seed, index, rows, length))
                    index += 1
                started = started or set(multiprocessing.active_children()) - others
                try:
                    batch = waiting.popleft().result(timeout=BATCH_WAIT_S)
                except TimeoutError as error:
                    for worker in started:
                        worker.kill()  # the pool would wait for them for ever
                    ready = sum(future.done() for future in waiting)
                    raise RuntimeError(
                        f"batch {index - 6 * workers} of seed {seed} was not made in "
                        f"{BATCH_WAIT_S:g} s by {workers} workers, {ready} later ones were"
                    ) from error
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
