"""Native packing gives the bits of the readable one, from every kind of stored weight."""

import pytest
import torch

from moe_model.formats import FORMATS
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.packed import separate, unpack
from moe_model.kernels.cpu.packing import pack_expert, pack_linear
from moe_model.quant import StoredExpert, StoredMatrix, quantise
from tests.support.moe_model.kernel_cases import needs_kernels, random

SHAPES = [(1, 1), (31, 7), (33, 130), (64, 256), (100, 417)]


def stored(outputs, inputs, kind, seed=0, block=(128, 128), scale=1.0) -> StoredMatrix:
    weight = random(outputs, inputs, seed=seed, dtype=torch.float32) * scale
    if kind == "fp8":
        codes, scales = quantise(weight, *block)
        return StoredMatrix(values=codes, scales=scales, block=block, where="w")
    return StoredMatrix(values=weight.to(kind), scales=None, block=block, where="w")


def without_native(monkeypatch: pytest.MonkeyPatch, make):
    with monkeypatch.context() as patch:
        patch.setattr(library, "load", lambda: None)
        return make()


@needs_kernels
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["fp8", torch.bfloat16, torch.float32, torch.float16])
def test_native_and_readable_packing_agree(name, kind, monkeypatch):
    for outputs, inputs in SHAPES:
        matrix = stored(outputs, inputs, kind)
        fast = pack_linear([matrix], name)
        slow = without_native(monkeypatch, lambda m=matrix: pack_linear([m], name))
        assert torch.equal(fast.data, slow.data), (outputs, inputs)


@needs_kernels
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scale", [1e-38, 1e-31, 1e-20, 1e20])
def test_they_agree_on_extremes(name, scale, monkeypatch):
    matrix = stored(40, 300, torch.float32, scale=scale)
    matrix.values[3, 128:] = 0
    matrix.values[4] *= 1e5
    fast = pack_linear([matrix], name)
    slow = without_native(monkeypatch, lambda: pack_linear([matrix], name))
    assert torch.equal(fast.data, slow.data)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("native", [True, False])
def test_an_expert_and_joined_parts(name, native, monkeypatch):
    if not native:
        monkeypatch.setattr(library, "load", lambda: None)
    for kind in ("fp8", torch.bfloat16):
        w1, w3, w2 = (stored(48, 96, kind, 1), stored(48, 96, kind, 2), stored(96, 48, kind, 3))
        gate_up, down = pack_expert(StoredExpert(w1=w1, w3=w3, w2=w2), name)
        found = separate(unpack(gate_up), 48)
        for part, whole in zip((w1, w3), found, strict=True):
            assert torch.equal(unpack(pack_linear([part], name)), whole)
        assert torch.equal(unpack(pack_linear([w2], name)), unpack(down))
        joined = unpack(pack_linear([w1, w3, stored(5, 96, kind, 4)], name))
        parts = [w1, w3, stored(5, 96, kind, 4)]
        if name != "fp8" or kind == "fp8":
            each = torch.cat([unpack(pack_linear([part], name)) for part in parts])
            assert torch.equal(joined, each)


def test_fp8_keeps_the_stored_codes():
    matrix = stored(300, 260, "fp8", block=(96, 128))
    assert torch.equal(unpack(pack_linear([matrix], "fp8")), matrix.to(torch.float32))


def test_fp8_refuses_blocks_that_end_within_a_group():
    with pytest.raises(ValueError, match="w: fp8 takes scale blocks of a multiple of 128"):
        pack_linear([stored(8, 260, "fp8", block=(64, 64))], "fp8")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("native", [True, False])
def test_overflowing_scales_are_refused(name, native, monkeypatch):
    if not native:
        monkeypatch.setattr(library, "load", lambda: None)
    matrix = stored(8, 40, "fp8")
    matrix.scales.fill_(3e38)
    with pytest.raises(ValueError, match="w: values times their scales must be finite"):
        pack_linear([matrix], name)
