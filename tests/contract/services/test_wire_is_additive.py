"""Nothing that an older minor sends means something else today."""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pool

from protos import attention_pb2, expert_pb2, router_pb2
from tests.support.frozen_protos import frozen

TODAY = descriptor_pool.Default()
LOADED = (attention_pb2, expert_pb2, router_pb2)


def messages(parents: Any) -> Iterator[Any]:
    for one in parents:
        yield one
        yield from messages(one.nested_types)


def meaning(field: Any) -> tuple[Any, ...]:
    kind = field.message_type or field.enum_type
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated,
        kind.full_name if kind else None,
        field.containing_oneof.name if field.containing_oneof else None,
    )


def test_every_older_field_value_and_method_is_what_it_was() -> None:
    num_fields = 0
    for file in frozen().files:
        for old in messages(file.message_types_by_name.values()):
            today = TODAY.FindMessageTypeByName(old.full_name)
            for field in old.fields:
                assert meaning(today.fields_by_number[field.number]) == meaning(field)
                num_fields += 1
        for old in file.enum_types_by_name.values():
            values = TODAY.FindEnumTypeByName(old.full_name).values_by_number
            for value in old.values:
                assert values[value.number].name == value.name
        for old in file.services_by_name.values():
            for method in old.methods:
                today = TODAY.FindMethodByName(method.full_name)
                for side in ("input_type", "output_type"):
                    assert getattr(today, side).full_name == getattr(method, side).full_name
                for side in ("client_streaming", "server_streaming"):
                    assert getattr(today, side) == getattr(method, side)
    assert num_fields > 100
