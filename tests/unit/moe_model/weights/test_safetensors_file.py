"""Every claim of a safetensors header is checked against the file before use."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from moe_model.weights.safetensors_file import MAX_HEADER_BYTES, SafetensorsFile
from tests.support.examples import examples
from tests.support.moe_model.checkpoint_surgery import entry, with_header

A = entry("F32", [2, 3], 0, 24)
B = entry("U8", [4], 24, 28)
BODY = bytes(range(28))


def opened(tmp_path: Path, content: bytes) -> SafetensorsFile:
    path = tmp_path / "shard.safetensors"
    path.write_bytes(content)
    return SafetensorsFile(path)


def test_a_sound_file_is_read_byte_for_byte(tmp_path: Path):
    tensors = {
        "f32": torch.randn(3, 5),
        "bf16": torch.randn(7).bfloat16(),
        "codes": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "ids": torch.tensor([1, -2]),
        "scalar": torch.tensor(2.5),
    }
    file = opened(tmp_path, save(tensors, metadata={"format": "pt"}))
    assert set(file.entries) == set(tensors)
    for name, tensor in tensors.items():
        read = file.tensor(name)
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
        file.drop_cache(name)
        assert bytes(file.raw(name)) == bytes(tensor.reshape(-1).view(torch.uint8).tolist())


def test_data_need_not_be_aligned(tmp_path: Path):
    values = torch.tensor([1.5, -2.0, 3.25])
    header = '{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'
    for padding in range(4):
        content = with_header(header + " " * padding, values.numpy().tobytes())
        assert torch.equal(opened(tmp_path, content).tensor("x"), values)


def test_an_empty_tensor_has_no_bytes(tmp_path: Path):
    file = opened(tmp_path, with_header({"x": entry("F32", [0, 5], 0, 0)}, b""))
    assert file.tensor("x").shape == (0, 5)


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short"),
    "seven bytes": (b"\0" * 7, "too short"),
    "header length 0": (struct.pack("<Q", 0) + b"{}", "header length 0"),
    "header beyond the file": (struct.pack("<Q", 1000) + b"{}", "header length 1000"),
    "header of 2^63": (struct.pack("<Q", 2**63) + b"{}", f"header length {2**63}"),
    "header beyond 100 MB": (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}", "header length"),
    "header is a list": (with_header(b"[]", b""), "does not start with"),
    "header after a blank": (with_header(b" {}", b""), "does not start with"),
    "header no UTF-8": (with_header(b'{"\xff": 1}', b""), "not valid JSON"),
    "header cut": (with_header(b'{"a": ', b""), "not valid JSON"),
    "header nested": (with_header(b'{"a":' + b"[" * 200_000, b""), "not valid JSON"),
    "a number of 5000 digits": (with_header(b'{"a": ' + b"9" * 5000 + b"}", b""), "header"),
    "a name twice": (
        with_header(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"\0",
        ),
        "duplicate",
    ),
    "an entry of a number": (with_header({"a": 3}, b""), "tensor a: expected dtype"),
    "an entry without shape": (
        with_header({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"\0"),
        "tensor a: expected",
    ),
    "an entry with more": (with_header({"a": {**B, "more": 1}}, b"\0"), "tensor a: expected"),
    "unknown dtype": (with_header({"a": entry("F4", [1], 0, 1)}, b"\0"), "tensor a: dtype 'F4'"),
    "dtype of a list": (
        with_header({"a": {"dtype": [], "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
        "tensor a",
    ),
    "negative size": (with_header({"a": entry("U8", [-1], 0, 1)}, b"\0"), "tensor a: shape"),
    "fractional size": (with_header({"a": entry("U8", [1.0], 0, 1)}, b"\0"), "tensor a: shape"),
    "size of a bool": (with_header({"a": entry("U8", [True], 0, 1)}, b"\0"), "tensor a: shape"),
    "nine dimensions": (with_header({"a": entry("U8", [1] * 9, 0, 1)}, b"\0"), "tensor a: shape"),
    "sizes whose product overflows": (
        with_header({"a": entry("F32", [2**61, 2**61, 4], 0, 0)}, b""),
        "tensor a: 0 bytes stored",
    ),
    "offset negative": (with_header({"a": entry("U8", [1], -1, 0)}, b"\0"), "data_offsets"),
    "offsets reversed": (with_header({"a": entry("U8", [1], 1, 0)}, b"\0"), "data_offsets"),
    "three offsets": (
        with_header({"a": {**B, "data_offsets": [0, 1, 4]}}, b"\0"),
        "tensor a: data_offsets",
    ),
    "too few bytes": (with_header({"a": entry("F32", [2], 0, 4)}, bytes(4)), "tensor a: 4 bytes"),
    "overlap": (
        with_header({"a": A, "b": entry("U8", [4], 20, 24)}, BODY[:24]),
        "tensor b overlaps a",
    ),
    "the same bytes twice": (with_header({"a": A, "b": A}, BODY[:24]), "tensor b overlaps a"),
    "gap": (
        with_header({"a": A, "b": entry("U8", [4], 25, 29)}, BODY + b"\0"),
        "b leaves a gap after a",
    ),
    "gap at the start": (with_header({"b": B}, BODY), "b leaves a gap after the header"),
    "truncated": (with_header({"a": A, "b": B}, BODY[:-1]), "truncated"),
    "trailing bytes": (with_header({"a": A, "b": B}, BODY + b"\0"), "trailing"),
    "a name of two lines": (with_header({"a\nb": entry("U8", [2], 0, 1)}, b"\0"), "name"),
    "a name of a megabyte": (with_header({"a" * 10**6: entry("U8", [2], 0, 1)}, b"\0"), "name"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path: Path, name: str):
    content, words = BAD[name]
    with pytest.raises(ValueError, match="safetensors") as error:
        opened(tmp_path, content)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "shard.safetensors"))
    assert words in message
    assert "\n" not in message
    assert len(message) < 1000


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="No such file"):
        SafetensorsFile(tmp_path / "nothing")
    with pytest.raises(ValueError, match="Is a directory"):
        SafetensorsFile(tmp_path)


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
sizes = st.integers(-2, 30)
entries = (
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "U8", "BF16", "F8_E4M3"]) | junk,
            "shape": st.lists(sizes, max_size=3) | junk,
            "data_offsets": st.lists(sizes, min_size=2, max_size=2) | junk,
        }
    )
    | junk
)


@examples(300)
@given(st.dictionaries(st.text(max_size=6), entries, max_size=4), st.integers(0, 40))
def test_a_mutated_header_is_refused_or_every_tensor_is_readable(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], body_bytes: int
):
    assert_refused_or_readable(tmp_path_factory, with_header(header, bytes(body_bytes)))


@examples(300)
@given(st.integers(0, 200), st.binary(min_size=1, max_size=6))
def test_a_sound_file_with_changed_bytes_is_refused_or_readable(
    tmp_path_factory: pytest.TempPathFactory, at: int, change: bytes
):
    content = bytearray(with_header({"a": A, "b": B}, BODY))
    at %= len(content)
    content[at : at + len(change)] = change
    assert_refused_or_readable(tmp_path_factory, bytes(content))


def assert_refused_or_readable(factory: pytest.TempPathFactory, content: bytes) -> None:
    try:
        file = opened(factory.getbasetemp(), content)
    except ValueError as error:
        message = str(error)
    else:
        assert_readable(file, len(content))
        return
    assert "\n" not in message


def assert_readable(file: SafetensorsFile, size_bytes: int) -> None:
    for name, found in file.entries.items():
        assert 0 <= found.start <= found.end <= size_bytes
        assert file.tensor(name).nbytes == len(file.raw(name))
