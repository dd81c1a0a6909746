"""Tensors to and from the wire: dtype + shape + raw little-endian bytes.

The gateway and the router must not import this module or `codec`, because they import torch.
"""

import ctypes
import math
import warnings
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from protos import tensor_pb2

# Decoded tensors are views of the received message and must not be written to.
warnings.filterwarnings("ignore", message="The given buffer is not writable")

WIRE_DTYPES: dict[torch.dtype, "tensor_pb2.DType"] = {
    torch.float32: tensor_pb2.DTYPE_FLOAT32,
    torch.bfloat16: tensor_pb2.DTYPE_BFLOAT16,
}
_TORCH_DTYPES = {wire: dtype for dtype, wire in WIRE_DTYPES.items()}


def tensor_bytes(tensor: Tensor) -> bytes:
    """A CPU tensor's elements, row-major, for any dtype. Copies once."""
    assert tensor.is_cpu
    tensor = tensor if tensor.is_contiguous() else tensor.contiguous()
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)


def encode(tensor: Tensor) -> tensor_pb2.Tensor:
    """A Tensor message with a copy of the data. Raises KeyError for a dtype not on the wire."""
    return tensor_pb2.Tensor(
        dtype=WIRE_DTYPES[tensor.dtype], shape=tensor.shape, data=tensor_bytes(tensor)
    )


def decode(
    message: tensor_pb2.Tensor,
    *,
    field: str,
    dtypes: Collection["tensor_pb2.DType"],
    shape: Sequence[int],
) -> Tensor:
    """A read-only view of the message's data, checked before anything is allocated.

    Args:
        field: name used in errors.
        dtypes: wire dtypes allowed.
        shape: expected shape; -1 allows any size >= 1.

    Raises:
        ValueError: naming the field, the value received and what is allowed.
    """
    shape = _check(message, field, dtypes, shape)
    return torch.frombuffer(message.data, dtype=_TORCH_DTYPES[message.dtype]).view(shape)


def decode_into(message: tensor_pb2.Tensor, out: Tensor, *, field: str) -> None:
    """Copy the message's data into `out`: contiguous, on the CPU, of the expected shape and dtype.

    Raises ValueError as `decode` does, and then leaves `out` unchanged.
    """
    assert out.is_contiguous()
    assert out.is_cpu
    _check(message, field, (WIRE_DTYPES[out.dtype],), out.shape)
    ctypes.memmove(out.data_ptr(), message.data, out.nbytes)


def _check(
    message: tensor_pb2.Tensor,
    field: str,
    dtypes: Collection["tensor_pb2.DType"],
    shape: Sequence[int],
) -> tuple[int, ...]:
    """The message's shape. Raises ValueError for a wrong dtype, shape or byte count."""
    if message.dtype not in dtypes:
        allowed = ", ".join(tensor_pb2.DType.Name(dtype) for dtype in sorted(dtypes))
        raise ValueError(f"{field}.dtype {message.dtype} is not one of {allowed}")
    got = tuple(message.shape)
    if len(got) != len(shape) or any(
        size < 1 or (want != -1 and size != want) for size, want in zip(got, shape, strict=True)
    ):
        # A hostile shape may have millions of sizes: the message shows only the first ones.
        shown = f"{list(got[:8])}" + (f" of {len(got)} sizes" if len(got) > 8 else "")
        raise ValueError(f"{field}.shape {shown} is not {list(shape)} (-1: any size >= 1)")
    dtype = _TORCH_DTYPES[message.dtype]
    expected = math.prod(got) * dtype.itemsize
    if len(message.data) != expected:
        raise ValueError(
            f"{field}.data has {len(message.data)} bytes; {list(got)} needs {expected}"
        )
    return got
