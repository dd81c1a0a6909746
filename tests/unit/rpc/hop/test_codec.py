"""The native codec and the protobuf one are the same codec."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from expert_svc.calls import Call, FrameReader
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from protos import expert_pb2
from rpc.hop.codec import (
    CallHeader,
    Dispatch,
    HopCodec,
    Sums,
    execute_checksum,
    load_native,
    result_checksum,
    result_of,
)
from rpc.hop.tensor_codec import encode
from tests.support.examples import examples

NATIVE = load_native()
PLAIN = HopCodec(None)
EXPERTS, TOP_K, D = 8, 3, 6
CONFIG = parse_config(
    TINY
    | {
        "hidden_size": D,
        "num_hidden_layers": 2,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": TOP_K,
    }
)

pytestmark = pytest.mark.skipif(NATIVE is None, reason="the package was built without a compiler")


def rows(seed: int, num_rows: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num_rows, D, generator=generator).to(dtype)
    ids = torch.stack(
        [torch.randperm(EXPERTS, generator=generator)[:TOP_K] for _ in range(num_rows)]
    )
    return hidden, ids.sort(dim=-1).values.int(), torch.rand(num_rows, TOP_K, generator=generator)


def reader(native: object, dtype: torch.dtype = torch.float32) -> FrameReader:
    return FrameReader(CONFIG, dtype=dtype, max_rows=16, native=native)


def same_call(one: Call, other: Call) -> None:
    for name in ("call_id", "layer_idx", "is_decode", "deadline_s", "per_pair", "num_rows"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("hidden_ND", "row_of_pair_M", "expert_ids_M", "weights_M"):
        assert torch.equal(getattr(one.unpack(None), name), getattr(other.unpack(None), name)), name


@examples(60)
@given(
    seed=st.integers(0, 10**6),
    num_rows=st.integers(1, 12),
    call_id=st.integers(1, 2**63),
    version=st.sampled_from([0, 1, 300, 2**40]),
    owner=st.sampled_from([None, 0, 1, 2]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_both_build_the_same_execute_and_read_it_alike(
    seed: int, num_rows: int, call_id: int, version: int, owner: int | None, dtype: torch.dtype
):
    hidden, ids, weights = rows(seed, num_rows, dtype)
    header = CallHeader(call_id, 1, expert_pb2.PHASE_DECODE, 70_000, version)
    owners = None if owner is None else np.array([0, 0, 1, 1, 0, 1, 1, 1], dtype=np.int32)
    built = [
        codec.build_execute(header, hidden, ids, weights, owners, owner or 0)
        for codec in (HopCodec(NATIVE), PLAIN)
    ]
    if built[0] is None or built[1] is None:
        assert built == [None, None]  # that pool has no pair
        return
    frames = [expert_pb2.ExecuteRequest.FromString(dispatch.frame) for dispatch in built]
    assert frames[0] == frames[1]
    assert built[0].rows == built[1].rows
    native = reader(NATIVE, dtype).read_plain(built[0].frame, 5.0)
    assert native is not None, "a sound frame takes the fast path"
    same_call(native, reader(None, dtype).read(frames[0].execute, 5.0))


def sound_frame() -> bytes:
    hidden, ids, weights = rows(1, 3)
    header = CallHeader(9, 1, expert_pb2.PHASE_PREFILL, 5, 7)
    dispatch = PLAIN.build_execute(header, hidden, ids, weights)
    assert isinstance(dispatch, Dispatch)
    return dispatch.frame


@examples(400)
@given(data=st.data())
def test_whatever_the_native_reader_accepts_the_protobuf_one_accepts_alike(data: st.DataObject):
    frame = bytearray(sound_frame())
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "twice"]))
        at = data.draw(st.integers(0, len(frame) - 1))
        if kind == "flip":
            frame[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del frame[at : at + data.draw(st.integers(1, 4))]
        elif kind == "insert":
            frame[at:at] = data.draw(st.binary(min_size=1, max_size=3))
        else:
            frame += frame[at:]
        if not frame:
            return
    read_alike(bytes(frame))


def read_alike(frame: bytes) -> bool:
    """Whether the native reader takes the frame; if so, the protobuf one has read the same."""
    call = reader(NATIVE).read_plain(frame, 5.0)
    if call is None:
        return False  # the protobuf path will decide
    other = reader(None).read(expert_pb2.ExecuteRequest.FromString(frame).execute, 5.0)
    try:
        call.unpack(None)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            other.unpack(None)
    else:
        same_call(call, other)
    return True


@pytest.mark.hypothesis
def test_a_sender_s_own_mistakes_are_read_alike():
    """Under a right checksum, unlike bytes that were changed on the way."""
    taken = 0

    @examples(400, few=120)
    @given(
        field=st.sampled_from(["row_splits", "expert_ids", "weights", "data"]),
        at=st.integers(0, 8),
        value=st.sampled_from([-(2**31), -1, 0, 1, 2, 7, 8, 2**31 - 1]),
        numbers=st.fixed_dictionaries(
            {},
            optional={
                "layer_idx": st.integers(0, 3),
                "phase": st.integers(0, 3),
                "timeout_ms": st.sampled_from([0, 1, 2**31, 2**32 - 1]),
            },
        ),
    )
    def send(field: str, at: int, value: int, numbers: dict[str, int]) -> None:
        nonlocal taken
        execute = expert_pb2.ExecuteRequest.FromString(sound_frame()).execute
        holder = execute.hidden if field == "data" else execute
        words = bytearray(getattr(holder, field))
        at %= len(words) // 4
        words[4 * at : 4 * at + 4] = value.to_bytes(4, "little", signed=True)
        setattr(holder, field, bytes(words))
        for name, number in numbers.items():
            setattr(execute, name, number)
        execute.checksum = execute_checksum(execute)
        taken += read_alike(expert_pb2.ExecuteRequest(execute=execute).SerializeToString())

    send()
    assert taken > 10


@pytest.mark.parametrize("chosen", [None, [0, 2], [1]])
def test_both_build_the_same_result_and_add_it_alike(chosen: list[int] | None):
    part = torch.randn(3 if chosen is None else len(chosen), D)
    named = None if chosen is None else np.array(chosen, dtype="<i4").tobytes()
    native = HopCodec(NATIVE)
    frame = native.build_result(5, 300, 0, part)
    assert frame == PLAIN.build_result(5, 300, 0, part)
    found = native.read_result(frame)
    assert found is not None
    assert found[:3] == (5, 300, 0)
    message = expert_pb2.ExecuteResponse.FromString(frame).result
    sums = [torch.ones(3, D), torch.ones(3, D)]
    native.add_rows(found, len(part), named, Sums(sums[0]))
    PLAIN.add_rows(result_of(message), len(part), named, Sums(sums[1]))
    assert torch.equal(sums[0], sums[1])


def unchecked(part: torch.Tensor) -> bytes:
    """The answer of a pool that does not look at its numbers."""
    result = expert_pb2.Result(call_id=1, rows=encode(part))
    result.checksum = result_checksum(result)
    return expert_pb2.ExecuteResponse(result=result).SerializeToString()


@pytest.mark.parametrize("native", [NATIVE, None], ids=["native", "protobuf"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_that_are_not_finite_leave_only_with_a_word_about_them(
    native: object, bad: float, dtype: torch.dtype
):
    codec = HopCodec(native)
    part = torch.ones(3, D, dtype=dtype)
    assert codec.build_result(1, 0, 0, part) is not None
    part[1, D - 1] = bad
    assert codec.build_result(1, 0, 0, part) is None
    frame = codec.build_result(1, 0, 0, part, overflowed=True)
    assert frame is not None
    assert expert_pb2.ExecuteResponse.FromString(frame).result.overflowed


@pytest.mark.parametrize("native", [NATIVE, None], ids=["native", "protobuf"])
@pytest.mark.parametrize("chosen", [None, [2, 0]])
def test_an_overflow_that_the_pool_answers_for_spoils_its_own_row_only(
    native: object, chosen: list[int] | None
):
    codec = HopCodec(native)
    part = torch.tensor([[1.0] * D, [float("nan")] * D])
    frame = codec.build_result(1, 0, 0, part, overflowed=True)
    assert frame is not None
    assert codec.read_result(frame) is None, "protobuf decides about what is unusual"
    found = result_of(expert_pb2.ExecuteResponse.FromString(frame).result)
    out = torch.ones(2 if chosen is None else 3, D)
    named = None if chosen is None else np.array(chosen, dtype="<i4").tobytes()
    codec.add_rows(found, 2, named, Sums(out))
    spoilt, sound = (1, 0) if chosen is None else (0, 2)
    assert out[spoilt].isnan().all()
    assert torch.equal(out[sound], torch.full((D,), 1.0 if chosen is None else 2.0))
    if chosen:
        assert torch.equal(out[1], torch.ones(D))


@pytest.mark.parametrize("native", [NATIVE, None], ids=["native", "protobuf"])
@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        (torch.full((2, D), float("nan")), "NaN"),
        (torch.full((2, D), float("inf")), "infinity"),
        (torch.zeros(3, D), r"rows.shape \[3, 6\] is not \[2, 6\]"),
        (torch.zeros(2, D - 1), r"rows.shape \[2, 5\] is not \[2, 6\]"),
    ],
)
def test_a_corrupt_result_is_refused_and_changes_nothing(
    native: object, part: torch.Tensor, wrong: str
):
    codec = HopCodec(native)
    frame = unchecked(part)
    found = codec.read_result(frame) or result_of(
        expert_pb2.ExecuteResponse.FromString(frame).result
    )
    out = torch.ones(2, D)
    with pytest.raises(ValueError, match=wrong):
        codec.add_rows(found, 2, None, Sums(out))
    assert torch.equal(out, torch.ones(2, D))


@pytest.mark.parametrize("native", [NATIVE, None], ids=["native", "protobuf"])
def test_weights_that_are_not_finite_are_not_sent(native: object):
    hidden, ids, weights = rows(1, 2)
    weights[1, 0] = float("nan")
    with pytest.raises(ValueError, match="weights"):
        HopCodec(native).build_execute(CallHeader(1, 0, 1, 5, 0), hidden, ids, weights)


def test_another_kind_of_frame_is_not_the_native_codec_s():
    native = HopCodec(NATIVE)
    error = expert_pb2.ExecuteResponse(error=expert_pb2.Error(call_id=3)).SerializeToString()
    bf16 = expert_pb2.ExecuteResponse(
        result=expert_pb2.Result(call_id=1, rows=encode(torch.zeros(1, D, dtype=torch.bfloat16)))
    ).SerializeToString()
    assert [native.read_result(frame) for frame in (error, bf16, b"", b"\x12")] == [None] * 4
    ping = expert_pb2.ExecuteRequest(ping=expert_pb2.Ping(nonce=1)).SerializeToString()
    assert reader(NATIVE).read_plain(ping, 0.0) is None


@examples(80)
@given(bit=st.integers(0, 10**6), native=st.booleans())
def test_a_flipped_bit_in_an_execute_is_never_computed(bit: int, native: bool):
    """The frame is refused, or still has the same meaning."""
    frame = bytearray(sound_frame())
    bit %= 8 * len(frame)
    frame[bit // 8] ^= 1 << bit % 8
    call = reader(NATIVE if native else None).read_plain(bytes(frame), 5.0)
    if call is None:
        try:
            parsed = expert_pb2.ExecuteRequest.FromString(bytes(frame))
        except DecodeError:
            return
        if parsed.WhichOneof("frame") != "execute" or not parsed.execute.HasField("checksum"):
            return
        try:
            call = reader(None).read(parsed.execute, 5.0)
        except ValueError:
            return
    was = expert_pb2.ExecuteRequest.FromString(sound_frame()).execute
    same_call(replace(call, deadline_s=5.005), reader(None).read(was, 5.0))


@pytest.mark.parametrize("native", [NATIVE, None], ids=["native", "protobuf"])
def test_a_flipped_bit_in_an_answer_never_reaches_the_sums(native: object):
    codec = HopCodec(native)
    frame = PLAIN.build_result(2**40 + 1, 3, 4, torch.randn(2, D))
    rows_at = frame.index(PLAIN.build_result(2**40 + 1, 3, 4, torch.zeros(0, D))[:1]) + 20
    for bit in range(8 * rows_at, 8 * (rows_at + 30)):
        bad = bytearray(frame)
        bad[bit // 8] ^= 1 << bit % 8
        found = codec.read_result(bytes(bad)) or result_of(
            expert_pb2.ExecuteResponse.FromString(bytes(bad)).result
        )
        out = torch.ones(2, D)
        with pytest.raises(ValueError, match=r"checksum|NaN|rows\."):
            codec.add_rows(found, 2, None, Sums(out))
        assert torch.equal(out, torch.ones(2, D))
