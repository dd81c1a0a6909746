"""Whole steps against the reference, and against each other: decoded, in chunks, filled up."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from attention_svc.sampling.plain import NUM_CONTROLS
from moe_model.kernels.cuda.graphs.step_numbers import (
    COLUMNS,
    MOST_ITEMS,
    ROWS,
    Shape,
    shape_of,
    write_numbers,
)
from moe_model.kernels.cuda.graphs.whole import CudaWholeSteps
from moe_model.kernels.cuda.model import Computed
from moe_model.maths.step_meta import StepMeta
from moe_model.maths.whole_steps import WholeSteps
from moe_model.reference import ReferenceModel
from moe_model.weights.checkpoint import Checkpoint
from tests.support.moe_model.cuda_parts import PROMPT, Parts, chunk_of, decode_of, write


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def steps(checkpoint: Checkpoint, device: torch.device) -> WholeSteps:
    return Parts.of(checkpoint, device).whole_steps()


def run(
    steps: WholeSteps, meta: StepMeta, controls: np.ndarray | None = None
) -> tuple[Tensor, list[int], np.ndarray]:
    step = steps.start(meta, controls)
    step.wait()
    return step.logits_BV.cpu().clone(), step.picked(), step.chosen()


def test_logits_are_the_references_and_a_decoded_row_has_its_chunks_bits(
    checkpoint: Checkpoint, steps: WholeSteps
) -> None:
    whole, best, _ = run(steps, chunk_of(0, PROMPT[:3], 0))
    expected = ReferenceModel(checkpoint, torch.float32).logits(PROMPT[:3])
    assert float((whole - expected).norm() / expected.norm()) < 0.05
    assert best == whole.argmax(dim=-1).tolist()
    alone, best, chosen = run(steps, decode_of(PROMPT[2:3], 2))
    assert torch.equal(alone, whole[2:3])
    assert best == [int(whole[2].argmax())]
    assert chosen.shape == (2, 1, checkpoint.config.top_k)


@pytest.mark.slow  # in the interpreter
def test_keys_and_values_in_int8_give_the_same_bits_decoded(
    checkpoint: Checkpoint, device: torch.device
) -> None:
    steps = Parts.of(checkpoint, device, "int8").whole_steps()
    whole, _, _ = run(steps, chunk_of(0, PROMPT[:3], 0))
    expected = ReferenceModel(checkpoint, torch.float32).logits(PROMPT[:3])
    assert float((whole - expected).norm() / expected.norm()) < 0.05
    alone, _, _ = run(steps, decode_of(PROMPT[2:3], 2))
    assert torch.equal(alone, whole[2:3])


@pytest.mark.slow  # in the interpreter
def test_bits_are_the_same_however_rows_are_grouped(
    checkpoint: Checkpoint, steps: WholeSteps
) -> None:
    """A prompt in one chunk; in two; its last tokens decoded beside two others: a graph's fourth
    row only fills it up."""
    whole, _, _ = run(steps, chunk_of(0, PROMPT, 0))
    for sequence in range(3):
        run(steps, chunk_of(sequence, PROMPT[:5], 0))
    assert torch.equal(run(steps, chunk_of(0, PROMPT[5:], 5))[0], whole[5:])
    for sequence in range(3):
        run(steps, chunk_of(sequence, PROMPT[:6], 0))
    three, best, chosen = run(steps, decode_of(PROMPT[6:7] * 3, 6))
    assert torch.equal(three, whole[6:7].expand(3, -1))
    assert len(best) == 3
    assert chosen.shape == (2, 3, checkpoint.config.top_k)
    assert chosen.min() >= 0


def test_ids_without_a_token_are_never_the_best(
    checkpoint: Checkpoint, steps: WholeSteps, device: torch.device
) -> None:
    _, best, _ = run(steps, chunk_of(0, PROMPT[:2], 0))
    logits, others, _ = run(
        Parts.of(checkpoint, device).whole_steps((best[0],)), chunk_of(0, PROMPT[:2], 0)
    )
    assert best[0] not in others
    assert logits.isfinite().all()  # the sampler asks that first, and masks then
    assert int(logits[0].argmax()) == best[0]


def test_tokens_are_drawn_with_their_rows_controls(steps: WholeSteps) -> None:
    """The best; one of the two best by its random number, in a decode step and after a chunk."""
    greedy, first, second = (1.0, 1.0, np.inf, 0.0, 0.0), (9.0, 2.0, np.inf, 0.0), 0.999
    columns = np.array([greedy, (*first, 0.0), (*first, second)]).T
    logits, picked, _ = run(steps, chunk_of(0, PROMPT[:3], 0), columns)
    tops = logits.topk(2).indices.tolist()
    assert picked == [tops[0][0], tops[1][0], tops[2][1]]
    _, picked, _ = run(steps, decode_of(PROMPT[2:3], 2), columns[:, 2:].copy())
    assert picked == [tops[2][1]]


def test_a_step_goes_on_from_what_the_one_under_way_picks(steps: WholeSteps) -> None:
    """Each row from the other's token; the graphs are there, and nobody waits between the two."""
    _, known, chosen = run(steps, decode_of(PROMPT[:2], 0))
    expected, best, _ = run(steps, decode_of(known[::-1], 1))
    assert known[0] != known[1]
    first = steps.start(decode_of(PROMPT[:2], 0))
    second = steps.start(decode_of([-2, -1], 1))
    second.wait()
    assert torch.equal(second.logits_BV.cpu(), expected)
    assert (first.picked(), second.picked()) == (known, best)
    assert (first.chosen() == chosen).all()


@pytest.mark.slow  # in the interpreter
def test_warming_up_runs_every_kind_of_step_and_stores_nothing(
    checkpoint: Checkpoint, steps: WholeSteps
) -> None:
    whole, _, _ = run(steps, chunk_of(0, PROMPT[:3], 0))
    assert list(steps.warm_up(3, 1, NUM_CONTROLS)) == [4, 3, 2, 1]
    alone, _, _ = run(steps, decode_of(PROMPT[2:3], 2))
    assert torch.equal(alone, whole[2:3])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_step_waits_for_the_device(steps: WholeSteps) -> None:
    """But for what is made once: a graph, and the copies of a step with chunks."""
    run(steps, decode_of(PROMPT[:2], 6))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step = steps.start(decode_of(PROMPT[:2], 6))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    step.wait()
    assert step.device_s() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_chunks_graph_has_the_bits_of_kernels_launched_one_by_one(steps: WholeSteps) -> None:
    assert isinstance(steps, CudaWholeSteps)
    meta = chunk_of(0, PROMPT, 0)
    step = steps._compute(meta, None, steps._layers)
    step.wait()
    expected = step.logits_BV.cpu().clone()
    assert not steps._chunks._graphs
    for _ in range(3):  # the first step makes the graph
        assert torch.equal(run(steps, meta)[0], expected)
    assert len(steps._chunks._graphs) == 1


class Kept:
    """Captures whose graphs replay nothing."""

    full = False

    def is_full(self) -> bool:
        return self.full

    def capture(self, work: Callable[[], object]) -> tuple[SimpleNamespace, object]:
        return SimpleNamespace(replay=lambda: None), work()


def test_a_step_is_short_once_its_graph_is_there(
    steps: WholeSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that makes it takes many times as long: not on an event loop."""
    one, greedy = decode_of(PROMPT[:1], 0), np.ones((NUM_CONTROLS, 1))
    assert steps.is_short(one)
    assert not steps.is_short(chunk_of(0, PROMPT[:2], 0))
    assert isinstance(steps, CudaWholeSteps)
    captures = Kept()
    monkeypatch.setattr(steps._graphs, "_captures", captures)
    zeros = torch.zeros((4, 1))
    computed = Computed(zeros, zeros, zeros, zeros[None], None)
    monkeypatch.setattr(steps._graphs, "_compute", lambda shape: computed)
    assert not steps.is_short(one)
    captures.full = True
    steps.start(one)
    assert not steps.is_short(one), "without room for a graph it runs kernel by kernel"
    captures.full = False
    steps.start(one)
    assert steps.is_short(one)
    assert not steps.is_short(one, greedy), "another graph"
    assert not steps.is_short(decode_of(PROMPT[:2], 0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_graph_that_one_thread_makes_is_replayed_by_another_which_goes_on_meanwhile(
    steps: WholeSteps, device: torch.device
) -> None:
    for sequence in range(2):
        run(steps, chunk_of(sequence, PROMPT[:6], 0))
    decode = decode_of(PROMPT[6:7] * 2, 6)
    with ThreadPoolExecutor(1) as thread:
        making = thread.submit(run, steps, decode)
        count = 0
        while not making.done():
            count += 1
            pinned = torch.empty(count % 7 + 1, pin_memory=True)
            pinned.copy_(torch.ones(len(pinned), device=device), non_blocking=True)
            torch.cuda.current_stream().synchronize()
            assert pinned.sum() == len(pinned)
        made, best, _ = making.result()
    assert steps.is_short(decode)
    logits, again, _ = run(steps, decode)
    assert torch.equal(logits, made)
    assert again == best


def test_numbers_of_a_step_are_written_as_its_graph_reads_them() -> None:
    meta = decode_of([7, 8, 9], 20)
    shape = shape_of(meta)
    assert shape == Shape(rows=4, items=4)
    out = np.full(100, 99, dtype=np.int64)
    count = write_numbers(meta, None, shape, out)
    columns = out[: COLUMNS * 4].reshape(COLUMNS, 4)
    assert columns[0].tolist() == [7, 8, 9, 0]
    assert columns[2].tolist() == [4, 36, 68, -1]
    assert columns[3].tolist() == [21, 21, 21, 0]
    assert columns[4, :3].tolist() == [0, 2, 4]
    assert columns[5, :3].tolist() == [0, 1, 2]
    assert out[COLUMNS * 4 :][:4].tolist() == [0, 1, 2, -1]
    assert out[shape.num_numbers : count].tolist() == [1, 0, 3, 2, 5, 4]
    assert out[count] == 99
    controls = np.arange(6.0).reshape(2, 3)
    with_controls = shape_of(meta, 2)
    assert with_controls is not None
    write_numbers(meta, controls, with_controls, out)
    given = out[COLUMNS * 4 : (COLUMNS + 2) * 4].view(np.float64).reshape(2, 4)
    assert given[:, :3].tolist() == controls.tolist()


def test_steps_that_no_graph_holds_have_no_shape() -> None:
    assert shape_of(chunk_of(0, PROMPT, 0)) is None
    many = decode_of([1], 0)
    wide = partial(torch.full, (ROWS[-1] + 1,), 1)
    assert shape_of(StepMeta(**{**vars(many), "token_ids_T": wide(), "logit_rows_B": wide()})) is (
        None
    )
    long = StepMeta(**{**vars(many), "decode_lens_B": torch.tensor([1 << 22])})
    assert shape_of(long) is None
    most = StepMeta(**{**vars(many), "decode_lens_B": torch.tensor([256 * MOST_ITEMS])})
    assert shape_of(most) == Shape(rows=1, items=MOST_ITEMS)
