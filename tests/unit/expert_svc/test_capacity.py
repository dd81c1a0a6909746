"""What a pool may hold, where, and what it says when its pieces do not fit."""

from pathlib import Path
from typing import Any

import pytest

from expert_svc.capacity import Capacity
from expert_svc.config import ExpertConfig
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from moe_model.formats import piece_bytes
from moe_model.workspace import pool_workspace
from rpc.config import max_rows_per_message
from rpc.mesh.pieces import Pieces
from tests.support.moe_model.fake_gpus import H100, H200, free_gib, gpus
from tests.support.moe_model.m2_config import M2 as M2_CONFIG

M2 = parse_config({**TINY, **M2_CONFIG})
ROUTED = {"router": "127.0.0.1:1", "expert_dtype": "int4_g128"}
TWO = {"gpus": gpus(H100, H200), "free": free_gib(79, 140)}


def layers(count: int) -> Pieces:
    return Pieces.all_of(count, M2.num_experts)


def capacity(pieces: Pieces | None = None, found: Any = TWO, **given: Any) -> Capacity:
    config = ExpertConfig(model=Path("."), **{**ROUTED, **given})
    return Capacity(config, M2, pieces or Pieces(), **found)


def test_a_pool_on_a_gpu_offers_what_fits_beside_a_layer_and_the_workspace() -> None:
    found = capacity()
    piece = piece_bytes(M2, "int4_g128", "cuda")
    workspace = pool_workspace(M2, most_rows=max_rows_per_message(M2.hidden_size, M2.top_k))
    room = int(0.9 * 79 * 2**30) - workspace.size - M2.num_experts * piece
    assert found.place.device == "cuda:0"
    assert found.num_pieces == room // piece
    assert f"at most {room // piece:,} pieces" in str(found)


def test_auto_takes_the_first_card_on_which_the_pieces_fit() -> None:
    assert capacity(layers(30)).place.device == "cuda:0"
    assert capacity(layers(60)).place.device == "cuda:1"


def test_pieces_that_fit_no_card_are_held_by_the_cpu_or_refused_where_a_card_is_named() -> None:
    found = capacity(layers(62), gpu_memory=0.5)
    assert found.place.device == "cpu"
    assert found.num_pieces == 0, "no limit"
    with pytest.raises(ValueError, match=r"^--device cuda:0: needs ") as error:
        capacity(layers(62), device="cuda:0", expert_dtype="fp8")
    assert "what fits: " in str(error.value)
    assert "(19 whole layers)" in str(error.value)
    with pytest.raises(ValueError, match="what fits: --expert-dtype fp8, or "):
        capacity(layers(25), device="cuda:1", expert_dtype="bf16", gpu_memory=0.7)


def test_memory_limits_a_pool_on_any_device() -> None:
    piece = piece_bytes(M2, "int4_g128", "cuda")
    assert capacity(memory=str(5 * piece)).num_pieces == 5
    on_cpu = piece_bytes(M2, "int4_g128")
    assert capacity(memory=str(5 * on_cpu), device="cpu").num_pieces == 5
    with pytest.raises(ValueError, match=r"^--memory .* holds 5 pieces .* 256 are needed"):
        capacity(layers(1), memory=str(5 * on_cpu), device="cpu", layers="0")


def test_memory_in_use_by_others_is_not_offered() -> None:
    few = capacity(found={"gpus": gpus(H100), "free": free_gib(20)})
    assert 0 < few.num_pieces < capacity().num_pieces / 2
