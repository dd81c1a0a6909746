"""Packed batches: reproducible, within one conversation, labelled only where the model writes."""

import itertools
import multiprocessing.connection
import time
from collections.abc import Callable

import numpy as np
import pytest

from demo_model import chat, dataset
from demo_model.dataset import NO_LABEL, Batch, Encoder
from tests.support.places import DEMO_MODEL

TOKENIZER = DEMO_MODEL / "tokenizer.json"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(TOKENIZER)


@pytest.fixture(scope="module")
def batch(encoder: Encoder) -> Batch:
    return dataset.build(encoder, seed=1, index=2, rows=4, length=1024)


def test_a_batch_is_a_function_of_seed_and_index(encoder: Encoder, batch: Batch) -> None:
    again = dataset.build(encoder, seed=1, index=2, rows=4, length=1024)
    other = dataset.build(encoder, seed=1, index=3, rows=4, length=1024)
    assert np.array_equal(again.tokens_RT, batch.tokens_RT)
    assert np.array_equal(again.labels_RT, batch.labels_RT)
    assert not np.array_equal(other.tokens_RT, batch.tokens_RT)


def test_rows_are_nearly_full_and_positions_restart_with_each_conversation(batch: Batch) -> None:
    assert (batch.documents_RT >= 0).mean() > 0.9
    starts = np.diff(batch.documents_RT, axis=1) > 0
    assert (batch.positions_RT[:, 1:][starts] == 0).all()
    inside = (np.diff(batch.documents_RT, axis=1) == 0) & (batch.documents_RT[:, 1:] >= 0)
    assert (np.diff(batch.positions_RT, axis=1)[inside] == 1).all()


def test_a_label_is_the_next_token_of_the_same_conversation(batch: Batch) -> None:
    rows, places = np.nonzero(batch.labels_RT != NO_LABEL)
    assert len(rows) > 200
    assert (batch.labels_RT[rows, places] == batch.tokens_RT[rows, places + 1]).all()
    assert (batch.documents_RT[rows, places] == batch.documents_RT[rows, places + 1]).all()


def test_labels_cover_the_completion_and_nothing_else(encoder: Encoder) -> None:
    made = chat.Conversation(
        skill="x",
        language="en",
        messages=[chat.user("Hi"), chat.assistant("A greeting.", "Hello!")],
    )
    documents = [encoder.encode(chat.render(made))]
    packed = dataset.pack(documents, 1, 64)
    labels = packed.labels_RT[0]
    written = encoder.tokenizer.decode(
        labels[labels != NO_LABEL].tolist(), skip_special_tokens=False
    )
    assert written == "A greeting.\n</think>\n\nHello![e~["


def test_letters_after_a_border_are_single_tokens(encoder: Encoder) -> None:
    ids, written = encoder.encode([(chat.letter_by_letter("strawberry"), True)])
    assert [encoder.tokenizer.decode([i]) for i in ids] == list("strawberry")
    assert all(written)


def test_a_conversation_that_fits_nowhere_is_dropped() -> None:
    packed = dataset.pack([([1] * 10, [True] * 10), ([2] * 6, [True] * 6)], 1, 12)
    assert packed.tokens_RT[0].tolist() == [1] * 10 + [0] * 2


def test_worker_processes_make_the_same_batches_in_order(encoder: Encoder) -> None:
    stream = dataset.stream(TOKENIZER, seed=9, rows=1, length=1024, workers=1, first=5)
    try:
        made = [next(stream), next(stream)]
    finally:
        stream.close()
    for index, found in enumerate(made, 5):
        expected = dataset.build(encoder, seed=9, index=index, rows=1, length=1024)
        assert np.array_equal(found.tokens_RT, expected.tokens_RT)


def endless(*arguments: object) -> chat.Conversation:
    while True:
        try:
            time.monotonic()
        except Exception:  # as the generators do
            continue


def failing(*arguments: object) -> chat.Conversation:
    raise ValueError("no such bug")


@pytest.mark.parametrize(
    ("fault", "told"), [(endless, "_EndlessError"), (failing, "ValueError: no such bug")]
)
def test_a_conversation_that_cannot_be_made_is_left_out_and_told(
    fault: Callable[..., chat.Conversation],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    encoder: Encoder,
) -> None:
    make, drawn = dataset.make, itertools.count()
    monkeypatch.setattr(dataset, "CONVERSATION_CPU_S", 0.2)
    monkeypatch.setattr(dataset, "make", lambda draw: (fault if next(drawn) == 3 else make)(draw))
    batch = dataset.build(encoder, seed=9, index=5, rows=2, length=1024)
    assert (batch.documents_RT >= 0).mean() > 0.8
    printed = capsys.readouterr().err
    assert printed.startswith("batch 5 of seed 9: a conversation is left out:\n")
    assert told in printed


def test_a_fault_in_every_conversation_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "make", failing)
    stream = dataset.stream(TOKENIZER, seed=9, rows=1, length=64, workers=1, first=5)
    with pytest.raises(ValueError, match="no such bug"):
        next(stream)


def test_a_batch_that_never_ends_is_named_by_its_seed_and_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dataset, "make", endless)
    monkeypatch.setattr(dataset, "CONVERSATION_CPU_S", 0.05)
    stream = dataset.stream(TOKENIZER, seed=9, rows=1, length=64, workers=1, first=5)
    with pytest.raises(RuntimeError, match=r"batch 5 of seed 9: 11 conversations took more than"):
        next(stream)


def test_a_worker_that_hangs_is_killed_and_the_batch_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(multiprocessing.active_children())
    monkeypatch.setattr(dataset, "build", lambda *arguments: time.sleep(600))
    monkeypatch.setattr(dataset, "BATCH_WAIT_S", 0.3)
    stream = dataset.stream(TOKENIZER, seed=9, rows=1, length=64, workers=2, first=5)
    with pytest.raises(RuntimeError, match=r"batch 5 of seed 9 was not made in 0\.3 s"):
        next(stream)
    hanging = {child.sentinel for child in set(multiprocessing.active_children()) - before}
    while hanging:
        ended = multiprocessing.connection.wait(list(hanging), timeout=30)
        assert ended, "a worker still runs"
        hanging -= set(ended)
