"""How much a service takes, and what is said when it does not fit."""

import re
from math import prod

import pytest
import torch

from moe_model import workspace
from moe_model.config import ModelConfig
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from moe_model.formats import ON_GPU, kv_position_bytes, matrix_bytes, piece_bytes
from moe_model.maths.kv_layout import Int8Layout, PlainLayout, block_bytes
from moe_model.memory_need import (
    MemoryNeed,
    Room,
    attention_need,
    formats_that_fit,
    pieces_that_fit,
    pool_need,
)
from tests.support.moe_model.fake_gpus import H100, gpus
from tests.support.moe_model.m2_config import M2 as M2_CONFIG

M2 = parse_config({**TINY, **M2_CONFIG})
GIB = 2**30
CARD = gpus(H100)().found[0]


def pool(device: str, num_pieces: int, most_in_a_layer: int) -> MemoryNeed:
    return pool_need(
        M2, "fp8", device, num_pieces=num_pieces, most_in_a_layer=most_in_a_layer, most_rows=512
    )


def test_keys_and_values_take_what_their_layouts_take() -> None:
    tiny = parse_config(TINY)
    for layout, name in (
        (PlainLayout.of(tiny, torch.bfloat16), "bf16"),
        (PlainLayout.of(tiny, torch.float32), "f32"),
        (Int8Layout(tiny.num_kv_heads, tiny.head_dim), "int8"),
    ):
        expected = block_bytes(layout, tiny.num_layers, 16)
        assert kv_position_bytes(tiny, name) * 16 == expected, name
    assert kv_position_bytes(tiny, "auto", "f32") == kv_position_bytes(tiny, "f32")


@pytest.mark.parametrize("name", ON_GPU)
@pytest.mark.parametrize("shape", [(128, 256), (1, 1), (72, 130), (200, 3072)])
def test_a_matrix_on_a_gpu_takes_what_its_codes_and_scales_take(
    name: str, shape: tuple[int, int]
) -> None:
    codes = pytest.importorskip("moe_model.kernels.cuda.codes")
    held = codes.FORMATS[name]
    size = prod(held.codes_shape(*shape)) * held.dtype.itemsize
    size += prod(held.scales_shape(*shape)) * held.scale_dtype.itemsize
    assert matrix_bytes(name, "cuda:1", *shape) == size


def test_a_pool_needs_its_pieces_a_layer_and_a_workspace() -> None:
    need = pool("cuda:0", 512, 256)
    assert need.weights == 2 * need.layer == 512 * piece_bytes(M2, "fp8", "cuda")
    assert need.fixed == 3 * need.layer + need.workspace.size
    assert need.workspace.size > workspace.LIBRARIES_BYTES
    assert pool("cpu", 2, 2).fixed == 2 * piece_bytes(M2, "fp8")


def test_a_layer_is_put_together_where_steps_will_have_their_rows() -> None:
    """Nothing runs meanwhile but the libraries."""
    need = in_one_process("int4_g128")
    assert need.layer == 0
    small = workspace.Steps(rows=16, decode_rows=1, positions=256)
    given = {"compute_dtype": "bf16", "linears": "fp8", "experts": "bf16", "steps": small}
    large = attention_need(M2, "cuda:0", **given)
    empty = large.workspace.size - large.workspace.libraries
    assert large.layer + empty == 256 * piece_bytes(M2, "bf16", "cuda:0")


def in_one_process(experts: str, linears: str = "bf16", config: ModelConfig = M2):
    return attention_need(config, "cuda:0", compute_dtype="bf16", linears=linears, experts=experts)


def test_the_workspace_is_shown_by_its_parts() -> None:
    shown = str(attention_need(M2, "cuda:0", compute_dtype="bf16", linears="fp8"))
    assert re.search(
        r"workspace \d\.\d GiB \(libraries 763 MiB, kernels \d+ MiB, rows \d+ MiB, attention 19",
        shown,
    )


def test_larger_steps_and_longer_contexts_need_a_larger_workspace() -> None:
    def size(experts: str = "", **given: int) -> int:
        steps = workspace.Steps(**given)
        return attention_need(
            M2, "cuda", compute_dtype="bf16", linears="fp8", experts=experts, steps=steps
        ).workspace.size

    small = size(rows=64, decode_rows=4, positions=1024)
    assert size(rows=2048, decode_rows=4, positions=1024) > small
    assert size(rows=64, decode_rows=64, positions=1024) > small
    assert size(rows=64, decode_rows=4, positions=65_536) > small
    assert size("int4", rows=64, decode_rows=4, positions=1024) > small
    hosted = workspace.Steps(rows=64, decode_rows=4, positions=1024, has_host_blocks=True)
    need = attention_need(M2, "cuda", compute_dtype="bf16", linears="fp8", steps=hosted)
    assert need.workspace.size == small + workspace.HOST_BLOCKS_BYTES


def test_what_does_not_fit_is_told_with_numbers_and_with_what_would() -> None:
    room = Room(gpu=CARD, share=0.9, free=78 * GIB)
    need = in_one_process("int4")
    hints = formats_that_fit("--expert-dtype", "int4", in_one_process, room.size)
    told = room.why_not(need, 0, hints)
    assert told.startswith(f"needs {need.fixed / GIB:.1f} GiB (weights ")
    assert "may take 71.1 GiB of cuda:0 (NVIDIA H100" in told
    assert told.endswith("(--gpu-memory 0.9); nothing fits")


def test_a_smaller_format_is_offered_where_it_fits() -> None:
    size = in_one_process("int4").fixed
    assert formats_that_fit("--expert-dtype", "fp8", in_one_process, size) == [
        "--expert-dtype int4"
    ]
    assert formats_that_fit("--expert-dtype", "fp8", in_one_process, 10**9) == []
    assert formats_that_fit("--expert-dtype", "int4_g128", in_one_process, 10**12) == []


def test_fewer_positions_are_offered_where_the_weights_fit() -> None:
    need = attention_need(M2, "cuda:0", compute_dtype="bf16", linears="fp8")
    room = Room(gpu=CARD, share=0.5, free=70 * GIB)
    told = room.why_not(need, 60 * GIB, [])
    left = room.size - need.fixed
    assert f"KV of {left // need.kv_position:,} positions (--kv-memory {left})" in told
    assert room.why_not(need, left, []) == ""
    assert room.why_not(need, left + 1, []) != ""


def test_memory_that_others_use_is_not_counted() -> None:
    room = Room(gpu=CARD, share=0.9, free=10 * GIB)
    assert room.size == 10 * GIB
    assert "the rest is in use" in str(room)


def test_as_many_pieces_fit_as_leave_room_to_load_a_layer() -> None:
    need = pool("cuda:0", 1, 256)
    piece = piece_bytes(M2, "fp8", "cuda:0")
    room = need.layer + need.workspace.size + 100 * piece + piece // 2
    assert pieces_that_fit(need, piece, room) == 100
    assert pieces_that_fit(need, piece, need.layer) == 0
