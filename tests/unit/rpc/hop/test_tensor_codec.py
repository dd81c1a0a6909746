"""Tensors keep every bit on the wire; a message is accepted only when its bytes fit its shape."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protos import tensor_pb2
from rpc.hop.tensor_codec import decode, encode

BOTH = frozenset({tensor_pb2.DTYPE_FLOAT32, tensor_pb2.DTYPE_BFLOAT16})


def read(message: tensor_pb2.Tensor, shape: tuple[int, ...] = (-1, 3)) -> torch.Tensor:
    return decode(message, field="rows", dtypes=BOTH, shape=shape)


@given(st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_every_bit_survives(rows: int, bf16: bool, seed: int):
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31, (rows, 3), generator=generator).to(torch.int32)
    tensor = bits.view(torch.float32)
    if bf16:
        tensor = bits.to(torch.int16).view(torch.bfloat16)
    back = read(encode(tensor))
    assert back.dtype == tensor.dtype
    whole = torch.int16 if bf16 else torch.int32
    assert torch.equal(back.view(whole), tensor.view(whole))
    assert len(encode(tensor).data) == tensor.nbytes


def test_a_slice_is_written_in_its_own_order():
    tensor = torch.arange(24.0).view(4, 6)[:, 1:4]
    assert torch.equal(read(encode(tensor)), tensor)
    assert torch.equal(read(encode(tensor.bfloat16())), tensor.bfloat16())


def test_a_dtype_that_is_not_on_the_wire_is_our_bug():
    with pytest.raises(KeyError):
        encode(torch.zeros(2, 3, dtype=torch.float64))


@given(
    st.sampled_from([0, 1, 2, 3, 99]),
    st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 4), max_size=4),
    st.integers(0, 60),
)
def test_a_message_is_refused_unless_shape_and_bytes_fit(dtype: int, shape: list[int], size: int):
    message = tensor_pb2.Tensor(dtype=dtype, shape=shape, data=bytes(size))
    itemsize = {1: 4, 2: 2}.get(dtype)
    sound = (
        itemsize is not None
        and len(shape) == 2
        and shape[0] >= 1
        and shape[1] == 3
        and size == math.prod(shape) * itemsize
    )
    if sound:
        assert read(message).shape == tuple(shape)
        return
    with pytest.raises(ValueError, match=r"^rows\.(dtype|shape|data)") as error:
        read(message)
    assert len(str(error.value)) < 300
