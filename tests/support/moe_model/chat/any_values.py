"""Any JSON value, as a strategy, and messages full of them."""

import contextlib
import copy
import json
from typing import Any

from hypothesis import strategies as st

from tests.support.moe_model.chat.samples import MARKERS

PIECES = [
    *MARKERS,
    *('"', "<", ">", "</parameter>", '<parameter name="k">', "</invoke>", '<invoke name="f">'),
    *("\0", "\ud800", "\\u0022", "\\", "\n", "{", '{"a": ', "]", "text"),
]


TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=5).map("".join)


NUMBER = (
    st.integers() | st.floats() | st.integers(0, 400).map(lambda n: 10**n) | st.just(float("nan"))
)


KEYS = TEXT | st.sampled_from(
    ["type", "text", "function", "name", "arguments", "role", "content", "id", "input", "source"]
)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


ANYTHING = ANY_JSON | ANY_JSON.map(json.dumps) | ANY_JSON.map(json.dumps).map(lambda t: t[:-1])


CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"k": "v"}'},
}


HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "one"}]},
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "two"}],
        "reasoning_content": "three",
        "refusal": None,
        "function_call": None,
        "tool_calls": [CALL, {**CALL, "id": "c2"}],
    },
    {"role": "tool", "tool_call_id": "c2", "content": "four"},
    {"role": "tool", "tool_call_id": "c1", "name": "f", "content": [{"type": "text", "text": "5"}]},
    {"role": "assistant", "content": "six"},
]


NOW = {"role": "user", "content": "seven"}


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything inside the value."""
    if not isinstance(value, dict | list):
        return []
    found = []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        found += [(*path, key), *paths(item, (*path, key))]
    return found


FIELDS = [path for path in paths(HISTORY) if len(path) > 1]


def with_values(changes: list[tuple[tuple[Any, ...], Any]]) -> list[dict[str, Any]]:
    """The history with these values at these paths."""
    messages = copy.deepcopy([*HISTORY, NOW])
    for (*parents, last), value in changes:
        target: Any = messages
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier one took the place
            for key in parents:
                target = target[key]
            target[last] = value
    return messages
