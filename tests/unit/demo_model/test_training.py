"""A few training steps on a CPU: it learns, balances its experts, and resumes where it was."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from demo_model import answers, checkpoint_format, data_wait, dataset, network, train
from demo_model.data_wait import DataWait
from demo_model.dataset import Encoder
from demo_model.generate import GREEDY, Decoder
from demo_model.network import Shape
from demo_model.optimiser import orthogonalised
from demo_model.train import padded
from demo_model.trainer import Settings, Trainer, learning_rate_scale
from tests.support.places import DEMO_MODEL

SHAPE = Shape(
    vocab_size=3072,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    head_dim=16,
    rotary_dim=8,
    intermediate_size=16,
    num_local_experts=8,
    num_experts_per_tok=2,
)


def settings(out: Path, rate: float = 1.0) -> Settings:
    return Settings(
        device="cpu",
        seconds=1.0,
        rows=1,
        length=512,
        workers=1,
        seed=0,
        source=DEMO_MODEL,
        out=out,
        compile=False,
        start_from=None,
        rate=rate,
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def batches() -> list[dataset.Batch]:
    encoder = Encoder(DEMO_MODEL / "tokenizer.json")
    return [dataset.build(encoder, 0, index, rows=1, length=512) for index in range(3)]


def test_the_loss_falls_and_the_bias_moves(batches: list[dataset.Batch], tmp_path: Path) -> None:
    trainer = Trainer(settings(tmp_path), SHAPE)
    losses = [float(trainer.train_step(batches[0], 0.0)) for _ in range(50)]
    assert losses[-1] < 0.8 * losses[0]
    assert trainer.masters["bias"].abs().max() > 0
    assert trainer.tokens == 50 * 512


def test_the_last_tenth_computes_with_fp8_rounded_matrices(
    batches: list[dataset.Batch], tmp_path: Path
) -> None:
    trainer = Trainer(settings(tmp_path, rate=0.0), SHAPE)
    trainer.train_step(batches[0], 0.5)
    assert torch.equal(trainer.copies["w2"], trainer.masters["w2"])
    trainer.train_step(batches[0], 0.95)
    assert not torch.equal(trainer.copies["w2"], trainer.masters["w2"])
    assert torch.equal(trainer.copies["embed"], trainer.masters["embed"])


def test_a_resumed_run_continues_exactly(batches: list[dataset.Batch], tmp_path: Path) -> None:
    straight = Trainer(settings(tmp_path), SHAPE)
    for i in range(4):
        straight.train_step(batches[i % 3], 0.1)
    first = Trainer(settings(tmp_path), SHAPE)
    for i in range(2):
        first.train_step(batches[i % 3], 0.1)
    first.save_state(tmp_path / "state.pt", elapsed=12.5)
    second = Trainer(settings(tmp_path), SHAPE)
    assert second.load_state(tmp_path / "state.pt") == 12.5
    assert second.step == 2
    for i in range(2, 4):
        second.train_step(batches[i % 3], 0.1)
    for name, master in straight.masters.items():
        torch.testing.assert_close(second.masters[name], master)


def test_an_export_is_a_whole_checkpoint_folder(tmp_path: Path) -> None:
    from moe_model.config import GenerationDefaults, load_generation_defaults
    from moe_model.weights.checkpoint import Checkpoint

    trainer = Trainer(settings(tmp_path / "model"), SHAPE)
    trainer.export()
    config = Checkpoint.open(tmp_path / "model").config
    assert config.num_layers == 2
    assert (tmp_path / "model" / "chat_template.jinja").exists()
    defaults = load_generation_defaults(tmp_path / "model", GenerationDefaults())
    assert (defaults.temperature, defaults.top_p, defaults.top_k) == (1.0, 0.95, 40)


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    assert learning_rate_scale(0.0, 0) < 0.05
    assert learning_rate_scale(0.15, 1000) == 1.0
    assert 0.4 < learning_rate_scale(0.575, 1000) < 0.6
    assert 0 < learning_rate_scale(0.9, 1000) < 0.1
    assert learning_rate_scale(1.0, 1000) == 0.0


def test_orthogonalised_gradients_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for size in ((3, 16, 48), (3, 48, 16)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(size)))
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.5


def test_vocabulary_sizes_are_padded_to_multiples_of_64() -> None:
    assert [padded(n) for n in (1, 64, 65, 3072)] == [64, 64, 128, 3072]


def test_a_training_run_ends_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "Shape", lambda **sizes: SHAPE)
    state = tmp_path / "state.pt"
    trainer = train.run(settings(tmp_path / "model"), state=state, exports=1)
    assert trainer.step == train.steps_done(state) > 0
    assert (tmp_path / "model" / "model.safetensors.index.json").exists()
    assert train.run(settings(tmp_path / "model"), state=state, exports=0).step == trainer.step


def test_the_shipped_size_is_at_most_40_million_bytes_on_disk(tmp_path: Path) -> None:
    shape = Shape(vocab_size=3072, **network.SIZES["shipped"])
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    checkpoint_format.save(network.initial(shape, 0), shape, tokens, tmp_path)
    size_bytes = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert 35_000_000 < size_bytes + 300_000 < 40_000_000  # with the tokenizer and the template
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("by", ["dense", "sparse", "grouped"])
def test_each_way_to_compute_the_experts_gives_the_same(by: str) -> None:
    def outcome(way: str) -> list[torch.Tensor]:
        weights = network.initial(SHAPE, 0)
        layer = {name: weights[name][0].clone() for name in network.LAYER_KINDS}
        for name in ("w13", "w2", "gate"):
            layer[name].requires_grad_()
        x = torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out, _ = network.mixture(x, layer, SHAPE, way)
        out.pow(2).sum().backward()
        grads = (x.grad, layer["w13"].grad, layer["w2"].grad, layer["gate"].grad)
        return [out, *(grad for grad in grads if grad is not None)]

    for wanted, found in zip(outcome("dense"), outcome(by), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_size_for_cpus_is_a_legal_demonstration_model() -> None:
    shape = Shape(vocab_size=3072, **network.SIZES["small"])
    parameters = sum(math.prod(size) for size in network.shapes(shape).values())
    assert 3e6 <= parameters <= 25e6
    assert shape.num_attention_heads * shape.head_dim != shape.hidden_size


def test_an_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="size is 'huge'; allowed are shipped, shallow, narrow, small"
    ):
        dataclasses.replace(settings(tmp_path), size="huge")


def test_a_window_that_was_mostly_waiting_for_data_ends_the_run() -> None:
    wait = DataWait(now=100.0)
    wait.add(110.0, 6.0)
    wait.add(119.0, 6.0)
    with pytest.raises(RuntimeError, match=r"waited for data 12\.0 of the last 20\.0 s"):
        wait.add(120.0, 0.0)


def test_each_window_is_counted_by_itself() -> None:
    wait = DataWait(now=0.0)
    for window in range(1, 5):
        wait.add(20.0 * window, 6.0)


def test_a_run_without_data_ends_before_its_time(
    batches: list[dataset.Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "Shape", lambda **sizes: SHAPE)
    monkeypatch.setattr(dataset, "stream", lambda *_, **__: iter(batches * 4))
    monkeypatch.setattr(data_wait, "WINDOW_S", 0.0)
    monkeypatch.setattr(data_wait, "MOST_SHARE", -1.0)
    endless = dataclasses.replace(settings(tmp_path), seconds=1e9)
    with pytest.raises(RuntimeError, match="waited for data"):
        train.run(endless, state=None, exports=0)
    assert not (tmp_path / "config.json").exists()


def test_a_run_that_breaks_off_exports_what_it_has_learnt(
    batches: list[dataset.Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(*_: object, **__: object) -> Iterator[dataset.Batch]:
        yield from batches * 4
        raise RuntimeError("no more data")

    monkeypatch.setattr(train, "Shape", lambda **sizes: SHAPE)
    monkeypatch.setattr(dataset, "stream", some)
    endless = dataclasses.replace(settings(tmp_path), seconds=1e9)
    with pytest.raises(RuntimeError, match="no more data"):
        train.run(endless, state=None, exports=0)
    assert checkpoint_format.load(tmp_path)[1] == SHAPE


@pytest.mark.parametrize("check_s", [0.0, 60.0])
def test_an_evaluation_ends_in_time_and_the_run_is_recorded(
    check_s: float,
    batches: list[dataset.Batch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    def checked(weights: object, folder: Path, *, seconds: float, **_: object) -> dict[str, Any]:
        asked.append(seconds)
        return {"tables": {}, "families": {}, "wrong": [], "wrong_steps": []}

    monkeypatch.setattr(train.self_check, "check", checked)
    monkeypatch.setattr(train.check, "check", checked)
    made = settings(tmp_path / "model")
    trainer = Trainer(made, SHAPE)
    trainer.train_step(batches[0], 0.0)
    trainer.export()
    summary = train.finish(trainer, made, 12.0, 1, check_s)
    assert sum(asked) <= max(2 * check_s, 0.0)
    assert asked[0] <= 0.45 * check_s
    recorded = json.loads((tmp_path / "model" / "training.json").read_text())
    assert recorded["steps"] == summary["steps"] == 1


def test_each_part_of_an_evaluation_gets_a_fair_share_of_the_time() -> None:
    begun = time.monotonic()
    found = dict(answers.deadlines(("a", "b", "c"), 30.0))
    assert found["a"] == pytest.approx(begun + 10, abs=1)
    assert found["b"] == pytest.approx(begun + 15, abs=1)  # "a" took no time
    assert found["c"] == pytest.approx(begun + 30, abs=1)


def test_what_is_not_answered_in_time_is_left_out() -> None:
    decoder = Decoder(network.initial(SHAPE, 0), SHAPE)
    encoder = Encoder(DEMO_MODEL / "tokenizer.json")

    def found(deadline: float) -> list[tuple[int, str]]:
        prompts, batches = [[1, 2], [3], [4]], [[1, 0], [2]]
        return list(
            answers.answers(
                decoder, encoder, prompts, batches, max_new=20, sampling=GREEDY, deadline=deadline
            )
        )

    assert [i for i, _ in found(math.inf)] == [1, 0, 2]
    begun = time.monotonic()
    assert found(begun - 1) == []
