"""--kv-memory and --gpu-memory: a size, or a share of what the rest leaves; always whole blocks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.config import AUTO_KV_BYTES, BLOCK_SIZE, AttentionConfig
from attention_svc.kv.budget import count_blocks, count_host_slots, need_on, why_too_small
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from moe_model.formats import attention_bytes, piece_bytes
from moe_model.maths.kv_layout import PlainLayout, block_bytes
from moe_model.weights.held_formats import HeldFormats
from moe_model.weights.place import Place
from moe_model.workspace import Steps
from rpc.config import max_rows_per_message
from rpc.process.sizes import MemoryBudget
from tests.support.moe_model.fake_gpus import H100, free_gib, gpus
from tests.support.moe_model.m2_config import M2 as M2_CONFIG

MODEL = parse_config(TINY)
M2 = parse_config({**TINY, **M2_CONFIG})
LAYOUT = PlainLayout.of(MODEL, torch.bfloat16)
HELD = HeldFormats(compute_dtype="bf16", experts="bf16", linears="bf16")
CPU = Place(device="cpu", formats=HELD)
ONE = block_bytes(LAYOUT, MODEL.num_layers, BLOCK_SIZE)
CARD = gpus(H100)().found[0]
GIB = 2**30


def config(kv_memory: str, transport: str = "in_process", **given: Any) -> AttentionConfig:
    return AttentionConfig(
        model=Path("."), kv_memory=kv_memory, transport=transport, router="127.0.0.1:1", **given
    )


def blocks(kv_memory: str, transport: str = "in_process", free_bytes: int = 10**12) -> int:
    return count_blocks(
        config(kv_memory, transport), MODEL, LAYOUT, CPU, host_free=lambda: free_bytes
    )


def test_a_block_is_what_the_model_says_a_token_takes():
    assert MODEL.kv_bytes_per_token(2) * BLOCK_SIZE == ONE


@given(st.integers(1, 10**9))
def test_a_size_is_never_exceeded(size_bytes: int):
    if size_bytes < ONE:
        with pytest.raises(ValueError, match=f"--kv-memory {size_bytes} holds no block"):
            blocks(str(size_bytes))
        return
    found = blocks(str(size_bytes))
    assert found * ONE <= size_bytes < (found + 1) * ONE


@pytest.mark.parametrize("transport", ["grpc", "in_process"])
def test_a_share_is_of_what_the_weights_leave(transport: str):
    free_bytes = 10 * 2**20
    experts = MODEL.num_pieces * piece_bytes(MODEL, "bf16") if transport == "in_process" else 0
    left = free_bytes - attention_bytes(MODEL, "bf16", "bf16") - experts
    for percent in (10, 30, 99.5):
        assert blocks(f"{percent}%", transport, free_bytes) == int(left * percent / 100) // ONE


def test_weights_that_leave_nothing_are_said_so():
    with pytest.raises(ValueError, match="the rest leaves 0"):
        blocks("50%", free_bytes=1000)


def test_auto_is_the_same_on_every_cpu():
    assert blocks("auto", free_bytes=0) == AUTO_KV_BYTES // ONE


class TestOnAGpu:
    FORMATS = HeldFormats(compute_dtype="bf16", experts="int4_g128", linears="fp8")
    LAYOUT = PlainLayout.of(M2, torch.bfloat16)
    PLACE = Place(device="cuda:0", formats=FORMATS, gpu=CARD)

    def positions(self, kv_memory: str = "auto", free: float = 79, **given: Any) -> int:
        asked = config(kv_memory, "grpc", **given)
        found = count_blocks(asked, M2, self.LAYOUT, self.PLACE, free=free_gib(free))
        return found * BLOCK_SIZE

    def test_auto_is_what_the_weights_leave_of_the_share(self):
        need = need_on(config("auto", "grpc"), M2, self.FORMATS, "cuda:0")
        assert need.workspace.size > 10**9
        for share in (0.5, 0.9):
            left = int(share * 79 * GIB) - need.fixed
            found = self.positions(gpu_memory=share) * need.kv_position
            assert left - BLOCK_SIZE * need.kv_position < found <= left

    def test_smaller_steps_leave_more_of_it(self):
        flags = {"max_batch_tokens": 64, "max_running": 4, "max_model_len": 32_768}
        assert self.positions(free=20, max_model_len=32_768) < self.positions(free=20, **flags)

    def test_the_largest_steps_are_those_of_the_flags(self):
        assert config("auto").steps(M2, on_gpu=True) == Steps()
        asked = config("auto", max_running=700, max_batch_tokens=600, kv_host_memory="1GiB")
        found = asked.steps(M2, on_gpu=True)
        assert (found.rows, found.decode_rows, found.has_host_blocks) == (600, 600, True)
        most = max_rows_per_message(M2.hidden_size, M2.top_k)
        many = {"max_batch_tokens": 10**6}
        assert config("auto", "grpc", **many).steps(M2, on_gpu=True).rows == most
        assert config("auto", **many).steps(M2, on_gpu=True).rows == 10**6  # no messages

    def test_steps_on_a_gpu_have_more_rows_unless_it_is_said_how_many(self):
        assert [config("auto").steps(M2, on_gpu=gpu).rows for gpu in (True, False)] == [2048, 512]
        asked = config("auto", max_batch_tokens=100)
        assert [asked.steps(M2, on_gpu=gpu).rows for gpu in (True, False)] == [100, 100]
        need = need_on(config("auto", "grpc"), M2, self.FORMATS, "cuda:0")
        fewer = need_on(config("auto", "grpc", max_batch_tokens=512), M2, self.FORMATS, "cuda:0")
        assert need.workspace.rows > fewer.workspace.rows

    def test_others_memory_is_left_alone(self):
        assert self.positions(free=20) < self.positions(free=40) < self.positions(free=79)

    def test_auto_is_no_more_than_all_sequences_can_use(self):
        assert self.positions(max_running=1, max_model_len=100) == 112

    def test_what_does_not_fit_is_refused_with_what_would(self):
        told = why_too_small(config("2GiB"), M2, CARD, self.FORMATS, free_gib(79))
        assert "needs 1" in told
        assert "--gpu-memory 0.9" in told
        assert "nothing fits" in told, "int4 experts are the smallest"
        told = why_too_small(config("60GiB", "grpc"), M2, CARD, self.FORMATS, free_gib(60))
        assert "what fits: KV of " in told
        assert why_too_small(config("auto", "grpc"), M2, CARD, self.FORMATS, free_gib(60)) == ""

    def test_a_smaller_format_of_the_linears_is_named(self):
        held = HeldFormats(compute_dtype="bf16", experts="bf16", linears="bf16")
        told = why_too_small(config("auto", "grpc"), M2, CARD, held, free_gib(9))
        assert told.endswith("what fits: --linear-dtype fp8")


@pytest.mark.parametrize("text", ["", "0%", "100%", "-3%", "x%", "30 percent", "0", "1e400"])
def test_anything_else_is_refused_by_name(text: str):
    with pytest.raises(ValueError, match="--kv-memory"):
        MemoryBudget.parse(text, "--kv-memory")


class TestHostMemory:
    def slots(self, size: str, free: int = 10**12, place: Place = CPU) -> int:
        asked = config("1MiB", kv_host_memory=size)
        return count_host_slots(asked, MODEL, LAYOUT, place, 7, host_free=lambda: free)

    @given(st.integers(ONE, 10**9))
    def test_a_size_is_never_exceeded(self, size_bytes: int):
        assert self.slots(str(size_bytes)) == size_bytes // ONE

    def test_none_is_asked_for_unless_it_is_said(self):
        assert count_host_slots(config("1MiB"), MODEL, LAYOUT, CPU, 7, host_free=lambda: 0) == 0
        assert self.slots("0", free=0) == 0

    def test_too_little_for_a_block_and_too_much_for_the_machine_are_refused(self):
        with pytest.raises(ValueError, match="--kv-host-memory 5 holds no block; one needs"):
            self.slots("5")
        taken = need_on(config("1MiB"), MODEL, HELD, "cpu").fixed + 7 * ONE
        assert self.slots(str(3 * ONE), free=taken + 3 * ONE) == 3
        with pytest.raises(ValueError, match=r"--kv-host-memory \d+: only .* are left"):
            self.slots(str(3 * ONE), free=taken + 3 * ONE - 1)
        # A GPU's weights and cache are not in the host's memory.
        on_card = Place(device="cuda:0", formats=HELD, gpu=CARD)
        assert self.slots(str(3 * ONE), free=3 * ONE, place=on_card) == 3

    @pytest.mark.parametrize("size", ["lots", "0GiB", "10%", "-1"])
    def test_what_is_no_size_is_refused(self, size: str):
        with pytest.raises(ValueError, match="--kv-host-memory"):
            config("1MiB", kv_host_memory=size)

    def test_without_the_prefix_cache_there_is_nothing_to_keep(self):
        with pytest.raises(ValueError, match="not with --no-prefix-cache"):
            config("1MiB", kv_host_memory="1GiB", no_prefix_cache=True)
