"""The roofline that `bench/engine/engine.py` prints: bytes, operations and which goal binds."""

import pytest

from bench.engine.real_width import REAL_WIDTH
from bench.engine.roofline import Rates, compare, distinct_experts, roofline, step_bytes, step_flops
from moe_model.families.known import parse_config

CONFIG = parse_config(REAL_WIDTH)
EVEN = [[8] * CONFIG.num_experts] * CONFIG.num_layers
RATES = Rates(read_gbps=33, gemm_gflops=420)


def test_one_row_reads_its_experts_and_a_crowd_reads_them_all():
    assert distinct_experts(EVEN, 1, CONFIG.top_k) == pytest.approx(4 * 8)
    assert distinct_experts(EVEN, 8, CONFIG.top_k) == pytest.approx(4 * 32 * (1 - 0.75**8))
    assert distinct_experts(EVEN, 4096, CONFIG.top_k) == pytest.approx(4 * 32)


def test_favourites_are_fewer():
    favourites = [[32] * 4 + [4] * 28] * CONFIG.num_layers  # 30 rows; four experts are in each
    assert distinct_experts(favourites, 8, CONFIG.top_k) < distinct_experts(EVEN, 8, CONFIG.top_k)


def test_a_step_reads_every_weight_in_its_format():
    assert step_bytes(CONFIG, "bf16", EVEN, 1) == pytest.approx(1.46e9, rel=0.01)
    ratios = {"fp8": 1 / 2, "int8": 1 / 2, "int4": 1 / 4}
    for weight_format, ratio in ratios.items():
        share = step_bytes(CONFIG, weight_format, EVEN, 8) / step_bytes(CONFIG, "bf16", EVEN, 8)
        assert ratio < share < ratio * 1.15


def test_reading_binds_few_rows_and_arithmetic_binds_many():
    tokens, binds = roofline(CONFIG, "bf16", EVEN, ("decode", 1), RATES)
    assert (tokens, binds) == (
        pytest.approx(33e9 / step_bytes(CONFIG, "bf16", EVEN, 1)),
        "read",
    )
    tokens, binds = roofline(CONFIG, "int4", EVEN, ("prefill", 256), RATES)
    assert (tokens, binds) == (
        pytest.approx(256 * 840e9 / step_flops(CONFIG, 256, 1)),
        "arithmetic",
    )


def test_the_goal_is_the_lower_of_peer_and_roofline():
    limit, _ = roofline(CONFIG, "int8", EVEN, ("decode", 8), RATES)

    def cell(ours: float, peer: float) -> dict:
        return compare(CONFIG, "int8", EVEN, ("decode", 8), [ours], [RATES], [peer])

    assert cell(0.70 * limit, 0.5 * limit)["of_goal"] == pytest.approx(1.4 / 1.3, rel=1e-3)
    assert cell(0.84 * limit, 0.8 * limit)["of_goal"] == pytest.approx(0.84 / 0.8, rel=1e-3)
    assert cell(0.79 * limit, 0.7 * limit)["of_goal"] < 1
    assert "goal" not in compare(CONFIG, "int8", EVEN, ("decode", 4), [1.0], [RATES], [1.0])
