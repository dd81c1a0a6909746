"""How do conversations become batches of packed rows?

A batch is a function of (seed, index) alone, so any number of worker processes produce
the same data, and a resumed training run continues where it stopped.
"""

import multiprocessing
import os
import random
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from demo_model import chat
from demo_model.conversation import make
from demo_model.draw import Draw
from demo_model.phrasings import LANGUAGES
from demo_model.programs import catalogue

NO_LABEL = -100

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
    rng = random.Random(f"{seed}-{index}")
    documents: list[Encoded] = []
    total = 0
    while total < rows * length:
        conversation = make(Draw(rng=rng, language=rng.choice(LANGUAGES)))
        encoded = encoder.encode(chat.render(conversation))
        if len(encoded[0]) <= length:
            documents.append(encoded)
            total += len(encoded[0])
    return pack(documents, rows, length)


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
    return build(_encoder, seed, index, rows, length)


def stream(
    tokenizer_file: Path, *, seed: int, rows: int, length: int, workers: int, first: int = 0
) -> Generator[Batch, None, None]:
    """Batches first, first + 1, ... without end, made ahead by worker processes."""
    catalogue.pairs()  # once, before the workers are forked
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(tokenizer_file,)
    ) as pool:
        waiting: deque[Future[Batch]] = deque()
        index = first
        try:
            while True:
                while len(waiting) < 6 * workers:
                    waiting.append(pool.submit(_build_in_worker, seed, index, rows, length))
                    index += 1
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
