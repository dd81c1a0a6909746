"""Which bodies and answers does hypothesis try? What the tests of several APIs have in common."""

import json
from dataclasses import dataclass
from typing import Any

import httpx
from hypothesis import HealthCheck
from hypothesis import strategies as st

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.examples import examples
from tests.support.gateway.answers import invoke
from tests.support.gateway.fake_attention import Script, ended, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import END_OF_THINK, END_OF_TOOL_CALL, TOOL_CALL

SOME = examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.just(10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.text("\ud83d\udc00\0x", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8).filter(str.isascii), inner, max_size=4)
    ),
    max_leaves=8,
)
CALLS = st.sampled_from(
    [
        invoke("weather", place="here", days="3"),
        invoke("weather", days="1" + "0" * 30),
        invoke("weather", days="0." + "123456789" * 3),
        invoke("weather", more='{"a": "\\ud800"}'),
        invoke("other"),
        '<invoke name="weather">',
        '<parameter name="place">',
        "</parameter>",
        "</invoke>",
    ]
)
PROSE = st.sampled_from(["hello ", " \n", "STOP", "ST", "\u00e9", "</think>", "{}"])
MARKERS = st.sampled_from([END_OF_THINK, TOOL_CALL, END_OF_TOOL_CALL])
PIECES = st.builds(
    lambda *parts: [piece for part in parts for piece in part],
    st.lists(PROSE, max_size=2),
    st.just([END_OF_THINK]) | st.just([]),
    st.lists(PROSE, max_size=3),
    st.just([TOOL_CALL]) | st.just([]),
    st.lists(CALLS, max_size=3),
    st.just([END_OF_TOOL_CALL]) | st.just([]),
    st.lists(PROSE | MARKERS | CALLS, max_size=3),
)


ENDS = {"eos": attention_pb2.FINISH_REASON_STOP, "cut": attention_pb2.FINISH_REASON_LENGTH}


@dataclass(frozen=True)
class Emission:
    """What a model says, in parts of these sizes; at a cut, without so many tokens at its end."""

    pieces: list[Any]
    sizes: list[int]
    end: str
    cut: int

    def script(self, tokenizer: Tokenizer) -> Script:
        ids = emitted(tokenizer, self.pieces)
        ids = ids[: len(ids) - self.cut] if self.end == "cut" else ids
        parts, start = [], 0
        while start < len(ids):
            size = self.sizes[len(parts) % len(self.sizes)]
            parts.append(tokens(start, ids[start : start + size]))
            start += size
        return lambda request: [*parts, ended(ENDS[self.end])]


def emissions(pieces: st.SearchStrategy[list[Any]] = PIECES) -> st.SearchStrategy[Emission]:
    return st.builds(
        Emission,
        pieces,
        st.lists(st.integers(1, 40), min_size=1, max_size=3),
        st.sampled_from(["eos", "cut"]),
        st.integers(0, 3),
    )


def posted(gateway: Harness, path: str, body: Any) -> httpx.Response:
    """The answer to this body, of which only some JSON can be made."""
    with httpx.Client(verify=False) as client:
        return client.post(
            gateway.base_url + path,
            content=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )


def emitted(tokenizer: Tokenizer, pieces: list[Any]) -> list[int]:
    ids: list[int] = []
    for piece in pieces:
        ids += [piece] if isinstance(piece, int) else tokenizer.encode_text(piece)
    return ids
