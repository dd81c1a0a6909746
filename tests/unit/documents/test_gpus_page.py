"""docs/gpus.md: its tables are what `plan` and the services compute."""

import re

import pytest

from expertmesh.forecasting.gpu_plan import plan_gpus
from moe_model.families.known import parse_config
from moe_model.formats import ON_GPU, attention_bytes, kv_position_bytes, piece_bytes
from moe_model.workspace import (
    KERNEL_IN_GRAPH_BYTES,
    LIBRARIES_BYTES,
    USUAL_STEPS,
    attention_workspace,
    pool_workspace,
)
from rpc.config import max_rows_per_message
from tests.support.moe_model.m2_config import M2 as M2_CONFIG
from tests.support.places import ROOT

PAGE = (ROOT / "docs" / "gpus.md").read_text(encoding="utf-8")
M2 = parse_config({"model_type": "minimax_m2", **M2_CONFIG})
CARDS = re.findall(
    r"^\| (\d) x (\d+) GiB \| `(\w+)` \| ([\d, ]+) \| (\d+) \| ([\d,]+) \|$", PAGE, re.M
)
FORMATS = re.findall(r"^\| `(\w+)` \| ([\d.]+) GiB \| ([\d.]+) GiB \|", PAGE, re.M)
GIB = 2**30


@pytest.mark.parametrize(("count", "size", "experts", "layers", "left", "positions"), CARDS)
def test_what_fits_is_what_plan_says(
    count: str, size: str, experts: str, layers: str, left: str, positions: str
) -> None:
    made = plan_gpus(
        M2,
        [int(size) * GIB] * int(count),
        weight_format=experts,
        linear_format="fp8",
        share=0.9,
        positions=32_768,
    )
    assert ", ".join(map(str, made.layers)) == layers
    assert made.left_layers == int(left)
    assert f"{made.positions // 100 * 100:,}" == positions
    assert made.fits


def test_the_tables_are_there() -> None:
    assert len(CARDS) > 20
    assert [name for name, *_ in FORMATS] == list(ON_GPU)


@pytest.mark.parametrize(("name", "experts", "attention"), FORMATS)
def test_sizes_of_formats_are_those_of_the_code(name: str, experts: str, attention: str) -> None:
    assert f"{M2.num_pieces * piece_bytes(M2, name, 'cuda') / GIB:.1f}" == experts
    assert f"{attention_bytes(M2, 'bf16', name, 'cuda') / GIB:.1f}" == attention


def test_the_workspace_and_a_positions_size_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    apart, whole = (
        attention_workspace(M2, USUAL_STEPS, has_experts=has_experts).size / GIB
        for has_experts in (False, True)
    )
    pool = pool_workspace(M2, most_rows=max_rows_per_message(M2.hidden_size, M2.top_k)).size / GIB
    assert (
        f"this is {apart:.1f} GiB, with all experts in one process {whole:.1f} GiB, for a pool "
        f"{pool:.1f} GiB"
    ) in text
    assert f"{LIBRARIES_BYTES // 10**6} MB for the libraries" in text
    assert f"{KERNEL_IN_GRAPH_BYTES // 2**10} KiB of the driver" in text
    a_thousand = 1000 * kv_position_bytes(M2, "bf16") / 2**20
    assert f"{a_thousand:.1f} MiB for 1,000" in PAGE
