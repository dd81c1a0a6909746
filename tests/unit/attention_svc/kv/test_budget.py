"""--kv-memory: a size, or a share of what the weights leave; always whole blocks."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.config import BLOCK_SIZE, AttentionConfig
from attention_svc.kv import budget as kv_budget
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from moe_model.formats import attention_bytes, piece_bytes
from moe_model.maths.kv_layout import PlainLayout, block_bytes
from moe_model.weights.held_formats import HeldFormats
from rpc.process.sizes import MemoryBudget

MODEL = parse_config(TINY)
LAYOUT = PlainLayout.of(MODEL, torch.bfloat16)
CPU = torch.device("cpu")
HELD = HeldFormats(compute_dtype="bf16", experts="bf16", linears="bf16")
ONE = block_bytes(LAYOUT, MODEL.num_layers, BLOCK_SIZE)


def config(kv_memory: str, transport: str = "in_process") -> AttentionConfig:
    return AttentionConfig(
        model=Path("."), kv_memory=kv_memory, transport=transport, router="127.0.0.1:1"
    )


def test_a_block_is_what_the_model_says_a_token_takes():
    assert MODEL.kv_bytes_per_token(2) * BLOCK_SIZE == ONE


@given(st.integers(1, 10**9))
def test_a_size_is_never_exceeded(size_bytes: int):
    if size_bytes < ONE:
        with pytest.raises(ValueError, match=f"--kv-memory {size_bytes} holds no block"):
            kv_budget.count_blocks(config(str(size_bytes)), MODEL, LAYOUT, HELD, CPU)
        return
    blocks = kv_budget.count_blocks(config(str(size_bytes)), MODEL, LAYOUT, HELD, CPU)
    assert blocks * ONE <= size_bytes < (blocks + 1) * ONE


@pytest.mark.parametrize("transport", ["grpc", "in_process"])
def test_a_share_is_of_what_the_weights_leave(monkeypatch, transport: str):
    free_bytes = 10 * 2**20
    monkeypatch.setattr(kv_budget, "free_memory_bytes", lambda device: free_bytes)
    experts = MODEL.num_pieces * piece_bytes(MODEL, "bf16") if transport == "in_process" else 0
    left = free_bytes - attention_bytes(MODEL, "bf16", "bf16") - experts
    for percent in (10, 30, 99.5):
        blocks = kv_budget.count_blocks(config(f"{percent}%", transport), MODEL, LAYOUT, HELD, CPU)
        assert blocks == int(left * percent / 100) // ONE


def test_weights_that_leave_nothing_are_said_so(monkeypatch):
    monkeypatch.setattr(kv_budget, "free_memory_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match="the weights leave 0"):
        kv_budget.count_blocks(config("50%"), MODEL, LAYOUT, HELD, CPU)


@pytest.mark.parametrize("text", ["", "0%", "100%", "-3%", "x%", "30 percent", "0", "1e400"])
def test_anything_else_is_refused_by_name(text: str):
    with pytest.raises(ValueError, match="--kv-memory"):
        MemoryBudget.parse(text, "--kv-memory")
