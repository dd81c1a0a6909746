"""What fits on GPUs: whole layers, attention on the first card, the rest for CPUs."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from expertmesh.cli import app
from expertmesh.console import EXIT_USAGE, CommandError
from expertmesh.forecasting.gpu_plan import CHEAP_HOP_S, GpuPlan, advice, plan_gpus
from moe_model.families.known import parse_config
from moe_model.formats import ON_GPU, piece_bytes
from moe_model.memory_need import attention_need, pool_need
from rpc.config import max_rows_per_message
from tests.support.moe_model.m2_config import M2 as M2_CONFIG

M2 = parse_config({"model_type": "minimax_m2", **M2_CONFIG})
GIB = 2**30
H100, H200 = 79 * GIB, 140 * GIB


def plan(*cards: int, experts: str, linears: str = "fp8", **given: float) -> GpuPlan:
    known = {"share": 0.9, "positions": 32_768}
    return plan_gpus(M2, cards, weight_format=experts, linear_format=linears, **{**known, **given})


def used(made: GpuPlan, card: int) -> int:
    """As the services that would be started count it."""
    experts, layers = made.weight_format, made.layers[card]
    attention = attention_need(
        M2,
        "cuda",
        compute_dtype="bf16",
        linears=made.linear_format,
        experts=experts if made.in_process else "",
    )
    pool = pool_need(
        M2,
        experts,
        "cuda",
        num_pieces=layers * M2.num_experts,
        most_in_a_layer=M2.num_experts,
        most_rows=max_rows_per_message(M2.hidden_size, M2.top_k),
    )
    size = attention.fixed + made.positions * attention.kv_position if card == 0 else 0
    return size + (pool.fixed if layers and not made.in_process else 0)


@pytest.mark.parametrize("experts", ON_GPU)
@pytest.mark.parametrize("cards", [(H200,), (H100, H100), (H200, H200), (H200, H100, H100)])
def test_every_card_is_filled_but_not_more(experts: str, cards: tuple[int, ...]) -> None:
    made = plan(*cards, experts=experts)
    layer = M2.num_experts * piece_bytes(M2, experts, "cuda")
    assert sum(made.layers) + made.left_layers == M2.num_layers
    for card, size in enumerate(cards):
        assert used(made, card) <= 0.9 * size
        if made.left_layers and card:
            assert used(made, card) + layer > 0.9 * size
    assert made.positions >= 32_768


def test_what_fits_one_card_runs_in_one_process() -> None:
    made = plan(H200, experts="int4_g128", share=0.97)
    assert made.in_process
    assert made.layers == (62,)
    assert made.placement() == ["cuda:0: attention, KV cache, layers 0-61, in one process"]


def test_a_card_that_is_too_small_for_all_leaves_layers_to_cpus() -> None:
    made = plan(H100, experts="fp8")
    assert not made.in_process
    (count,) = made.layers
    assert 0 < count < 20
    left_gib = made.left_layers * M2.num_experts * piece_bytes(M2, "fp8") / GIB
    assert made.placement() == [
        f"cuda:0: attention, KV cache, layers 0-{count - 1}",
        f"CPUs: layers {count}-61 in {left_gib:.1f} GiB",
    ]
    assert "whole layers" in advice(made, 2 * CHEAP_HOP_S)
    assert "most used experts" in advice(made, CHEAP_HOP_S / 2)
    assert advice(plan(H200, H200, H200, experts="fp8"), 1e-3) == "", "nothing is left"


def test_a_longer_context_takes_the_place_of_layers() -> None:
    short, long = (plan(H100, experts="fp8", positions=count) for count in (10_000, 150_000))
    assert long.positions >= 150_000
    assert long.layers[0] < short.layers[0]


def test_a_card_too_small_for_attention_is_said_so() -> None:
    assert not plan(8 * GIB, experts="int4").fits


class TestTheCommand:
    @pytest.fixture
    def m2(self, tmp_path: Path) -> Path:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"model_type": "minimax_m2", **M2_CONFIG}))
        return path

    def run(self, m2: Path, *arguments: object) -> Result:
        return CliRunner().invoke(app, ["plan", "--model", str(m2), *map(str, arguments)])

    def test_it_tells_each_format(self, m2: Path) -> None:
        done = self.run(m2, "--gpus", 2, "--gpu-memory-gb", 140, "--json")
        assert done.exit_code == 0, done.output
        told = {one["format"]: one for one in json.loads(done.stdout)["formats"]}
        assert list(told) == list(ON_GPU)
        expected = plan(H200, H200, experts="fp8", linears="bf16")
        assert told["fp8"]["layers"] == list(expected.layers)
        assert told["fp8"]["kv_positions"] == expected.positions
        text = self.run(m2, "--gpus", 2, "--gpu-memory-gb", 140).stdout
        assert "`expertmesh up --model FOLDER --expert-dtype FORMAT --linear-dtype bf16`" in text
        assert "cuda:0: attention, KV cache, layers 0-" in text
        assert re.search(
            r"\nworkspace of attention: \d\.\d GiB \(libraries \d+ MiB, kernels ", text
        )
        assert re.search(r"\nworkspace of a pool: \d\.\d GiB \(libraries \d+ MiB, kernels ", text)
        assert told["fp8"]["workspace_bytes"]["pool"] == expected.pool.workspace.size

    def test_it_says_with_its_status_that_nothing_fits(self, m2: Path) -> None:
        assert self.run(m2, "--gpus", 1, "--gpu-memory-gb", 8).exit_code == 1

    @pytest.mark.parametrize(
        "flags",
        [
            ("--gpus", 1),
            ("--gpus", 65, "--gpu-memory-gb", 80),
            ("--gpus", 1, "--gpu-memory-gb", 80, "--pools", 2, "--memory", "8GiB"),
            ("--gpus", 1, "--gpu-memory-gb", 80, "--gpu-memory", 2),
            ("--gpus", 1, "--gpu-memory-gb", 80, "--positions", 0),
            ("--gpus", 1, "--gpu-memory-gb", 80, "--linear-format", "int8"),
        ],
    )
    def test_flags_that_make_no_sense_are_refused(
        self, m2: Path, flags: tuple[object, ...]
    ) -> None:
        error = self.run(m2, *flags).exception
        assert isinstance(error, CommandError)
        assert error.exit_code == EXIT_USAGE
