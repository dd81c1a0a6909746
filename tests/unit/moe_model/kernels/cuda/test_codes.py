"""Codes on a GPU are the stored weights, and what is refused says which tensor it is."""

import pytest
import torch

from moe_model.kernels.cpu.integer_formats import pack_int4, unpack_int4
from moe_model.kernels.cuda import codes as codes_module
from moe_model.kernels.cuda.codes import FORMATS, FP8_ROWS, can_join, decode, encode, join
from moe_model.moved import Master, num_moves
from moe_model.quant import StoredMatrix, dequantise, quantise

CPU = torch.device("cpu")
OFF = {"bf16": 0.004, "fp8": 0.07, "int4": 0.3, "int4_g128": 0.4}


def stored(outputs: int, inputs: int, seed: int = 0) -> StoredMatrix:
    values = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    return StoredMatrix(values=values, scales=None, block=(1, 1), where="file: tensor")


def stored_fp8(outputs: int, inputs: int, block: tuple[int, int] = (128, 128)) -> StoredMatrix:
    made, scales = quantise(stored(outputs, inputs).values, *block)
    return StoredMatrix(values=made, scales=scales, block=block, where="file: tensor")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(64, 128), (130, 257), (1, 1), (200, 40)])
def test_decoded_codes_are_near_the_weights(name: str, shape: tuple[int, int]) -> None:
    matrix = stored(*shape)
    coded = encode(matrix, FORMATS[name], CPU)
    assert coded.codes.shape == FORMATS[name].codes_shape(*shape)
    assert coded.scales.shape == FORMATS[name].scales_shape(*shape)
    off = (decode(coded, *shape) - matrix.values).abs().max()
    assert off < OFF[name] * matrix.values.abs().max()


@pytest.mark.parametrize("block", [(128, 128), (256, 128), (128, 512)])
def test_fp8_codes_and_scales_are_the_checkpoints_own(block: tuple[int, int]) -> None:
    matrix = stored_fp8(300, 500, block)
    assert matrix.scales is not None
    found = decode(encode(matrix, FORMATS["fp8"], CPU), 300, 500)
    assert torch.equal(found, dequantise(matrix.values, matrix.scales, *block))


@pytest.mark.parametrize(("name", "group"), [("int4", 32), ("int4_g128", 128)])
def test_int4_weights_are_those_of_the_cpu(name: str, group: int) -> None:
    matrix = stored(32, 256)
    found = decode(encode(matrix, FORMATS[name], CPU), 32, 256)
    expected = unpack_int4(pack_int4(matrix.values[None], group), group)[0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(384, 256), (256, 200), (40, 256)])
def test_moved_blocks_are_coded_as_if_they_had_not_been_moved(
    name: str, shape: tuple[int, int]
) -> None:
    master = Master(stored=stored_fp8(*shape))
    for index in range(num_moves(*shape)):
        moved = master.move(index, "moved")
        plain = StoredMatrix(
            values=moved.values, scales=moved.scales, block=moved.block, where="plain"
        )
        found, expected = (encode(one, FORMATS[name], CPU) for one in (moved, plain))
        assert torch.equal(found.codes, expected.codes)
        assert torch.equal(found.scales, expected.scales)
    assert len(master.made) == 1


def test_fp8_blocks_that_are_no_multiples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"file: tensor: .* 128 x 128, not 64 x 128"):
        encode(stored_fp8(200, 128, (64, 128)), FORMATS["fp8"], CPU)


def test_weights_that_no_code_can_hold_are_refused() -> None:
    broken = StoredMatrix(
        values=torch.full((2, 2), float("nan")), scales=None, block=(1, 1), where="file: tensor"
    )
    with pytest.raises(ValueError, match="file: tensor"):
        encode(broken, FORMATS["int4"], CPU)


@pytest.mark.parametrize("name", FORMATS)
def test_joined_parts_are_the_whole(name: str) -> None:
    parts = [stored_fp8(128, 256), stored_fp8(256, 256), stored_fp8(72, 256)]
    assert can_join([128, 256, 72], [FORMATS[name]] * 3)
    coded = [encode(part, FORMATS[name], CPU) for part in parts]
    whole = torch.cat(
        [decode(one, part.values.shape[0], 256) for one, part in zip(coded, parts, strict=True)]
    )
    assert torch.equal(decode(join(coded), 456, 256), whole)


def test_parts_that_end_within_a_block_are_not_joined() -> None:
    assert not can_join([72, 64], [FORMATS["fp8"]] * 2)
    assert can_join([64, 72], [FORMATS["bf16"]] * 2)
    assert not can_join([128, 72], [FORMATS["fp8"], FP8_ROWS])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(520, 256), (300, 130)])
@pytest.mark.parametrize("block", [None, (128, 128), (256, 128)])
def test_a_large_matrix_is_coded_in_parts_to_the_same_bits(
    name: str,
    shape: tuple[int, int],
    block: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix = stored(*shape) if block is None else stored_fp8(*shape, block)
    whole = encode(matrix, FORMATS[name], CPU)
    monkeypatch.setattr(codes_module, "AT_ONCE", 1)
    parts = encode(matrix, FORMATS[name], CPU)
    assert torch.equal(parts.codes, whole.codes)
    assert torch.equal(parts.scales, whole.scales)
