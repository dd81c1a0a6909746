"""Whatever a peer puts into a message, reading it gives a result or a ValueError."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.sequence.params import read_params
from protos import attention_pb2, pieces_pb2, router_pb2
from router_svc.members.member import Model, read_register
from router_svc.placement.activations import Activations
from rpc.mesh.pieces import Pieces
from tests.support.examples import examples

INTEGERS = (
    0,
    1,
    2,
    7,
    255,
    256,
    2**31 - 1,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
    -1,
    -(2**31),
    -(2**63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-40, 1e38, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "",
    "a",
    "pool-0",
    "127.0.0.1:50052",
    "x" * 5_000,
    "\n2026 ERROR",
    "é\u202e",
    "a b",
    "[::1]:0",
)
BYTES = (b"", b"\x00", b"\xff" * 33, b"\x01" * 1_000)


def fill(message: Message, choose: random.Random, depth: int = 0) -> Message:
    """Random fields: extreme values, wrong lengths, missing and repeated parts."""
    for field in message.DESCRIPTOR.fields:
        if choose.random() < 0.35 or depth > 4:
            continue
        if not field.is_repeated:
            value = _value(field, choose, lambda f=field: getattr(message, f.name), depth)
            if value is not None:
                setattr(message, field.name, value)
            continue
        rows = getattr(message, field.name)
        for _ in range(choose.choice((0, 1, 1, 2, 3, 9))):
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                break
            value = _value(field, choose, rows.add if field.message_type else None, depth)
            if value is not None:
                rows.append(value)
    return message


def _value(field: Any, choose: random.Random, sub: Callable[[], Message] | None, depth: int) -> Any:
    """A value to set; None when a message was filled in its place."""
    if field.message_type is not None:
        assert sub is not None
        inner = sub()
        inner.SetInParent()
        fill(inner, choose, depth + 1)
        return None
    if field.cpp_type == Field.CPPTYPE_STRING:
        return choose.choice(BYTES if field.type == Field.TYPE_BYTES else TEXTS)
    if field.cpp_type in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        return choose.choice(FLOATS)
    if field.cpp_type == Field.CPPTYPE_BOOL:
        return choose.random() < 0.5
    if field.cpp_type == Field.CPPTYPE_ENUM:
        return choose.choice([value.number for value in field.enum_type.values])
    bits = 64 if field.cpp_type in (Field.CPPTYPE_INT64, Field.CPPTYPE_UINT64) else 32
    is_signed = field.cpp_type in (Field.CPPTYPE_INT32, Field.CPPTYPE_INT64)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    return choose.choice([value for value in INTEGERS if low <= value <= high])


def register(message: Any) -> None:
    member = read_register(message, "127.0.0.1", now_s=0.0)
    assert 0 < len(member.member_id) < 1_000
    assert member.member_id.isprintable()


def pieces(message: Any) -> None:
    found = Pieces.from_message(message, num_layers=4, num_experts=16, field="pieces")
    assert set(found.layers) <= set(range(4))


def status(message: Any) -> None:
    Activations().add(Model("checkpoint", 4, 16), message, 1.0)


READERS: dict[str, tuple[type[Message], Callable[[Any], object]]] = {
    "register": (router_pb2.Register, register),
    "pieces": (pieces_pb2.PieceSet, pieces),
    "status": (router_pb2.MemberStatus, status),
    "sampling": (attention_pb2.SamplingParams, lambda message: read_params(message, 1_000)),
}


@pytest.mark.parametrize("name", READERS)
@examples(300)
@given(seed=st.integers(0, 2**32))
def test_no_message_can_do_more_than_be_refused(name: str, seed: int) -> None:
    kind, read = READERS[name]
    message = fill(kind(), random.Random(seed))
    refusal = ""
    try:
        read(message)
    except ValueError as error:
        refusal = str(error)
    assert refusal.isprintable()
    assert len(refusal) < 600
