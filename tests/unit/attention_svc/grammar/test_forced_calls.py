"""Forced tool calls: which texts their grammars allow, and that the parser reads exactly those."""

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from attention_svc.grammar.state import GrammarState
from moe_model.chat.answer_grammar import ToolCalls, answer_grammar, named_refusal
from moe_model.chat.events import ToolCallArguments
from moe_model.families.minimax_m2.grammars import call_rules
from moe_model.families.minimax_m2.parser import OutputParser
from tests.support.attention_svc.grammar_harness import (
    BYTE_IDS,
    MARKERS,
    POINT,
    Compiler,
    feed,
    tool,
)
from tests.support.examples import examples

grammar_strings = st.lists(
    st.sampled_from(
        [
            "</parameter>",
            "</invoke>",
            "<invoke",
            '<invoke name="other">',
            '<parameter name="note">',
            '<parameter name="content">',
            "</minimax:tool_call>",
            "<think>",
            "\n",
            " ",
            "<",
            ">",
            "é",
        ]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def compiler():
    made = Compiler()
    yield made
    made.close()


REFERRING = tool(
    "zod",
    type="object",
    required=["from", "to"],
    properties={
        "from": POINT,
        "to": {"$ref": "#/properties/from"},
        "all": {"type": "array", "items": {"$ref": "#/$defs/n"}},
    },
    **{"$defs": {"n": {"type": "integer"}}},
)


def call_of(tools: list[dict[str, Any]], name: str, values: dict[str, str]) -> list[str | int]:
    """A call as the template writes it, marker tokens as ids."""
    parameters = "".join(f'<parameter name="{k}">{v}</parameter>\n' for k, v in values.items())
    text = f'\n<invoke name="{name}">\n{parameters}</invoke>\n'
    return ["\n", MARKERS["<minimax:tool_call>"], text, MARKERS["</minimax:tool_call>"]]


def takes(state: GrammarState, pieces: list[str | int]) -> bool:
    return all(
        state.accept(piece) if isinstance(piece, int) else feed(state, piece) for piece in pieces
    )


def forced(
    tools: list[dict[str, Any]], *, several: bool = False, patterns: dict[str, str] | None = None
) -> str:
    calls = ToolCalls(tools=tools, several=several, marker_ids=MARKERS, patterns=patterns or {})
    return answer_grammar(call_rules(calls))


TEXT_TOOLS = [
    tool(
        "write",
        type="object",
        required=["path", "content"],
        properties={key: {"type": "string"} for key in ("path", "content", "note")},
    ),
    tool("bash", type="object", properties={"command": {"type": "string"}}),
]


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        "std::vector<parameter_t> v;",
        "#include <parameters.h>",
        "cmd < invoke.log",
        "a < parameter",
        "<invoker/>",
        "docs: </parameter> closes",
        '<parameter name="content">1</parameter> is quoted',
        '<parameter name="a">1</parameter>\n  <parameter name="b">2</parameter>\n</service>\n',
        '<invoke name="bash">\n<parameter name="command">ls</parameter>\n</invoke>\n'
        "</minimax:tool_call>\n.",
        '</parameter>\n<parameter name="other">',
        "</parameter>\n</invoke>\n</minimax:tool_call>\n",
    ],
)
def test_a_forced_call_forbids_no_string(compiler: Compiler, value: str, several: bool):
    values = {"path": value, "content": value}
    state = compiler.start(forced(TEXT_TOOLS, several=several))
    assert takes(state, call_of(TEXT_TOOLS, "write", values))
    assert state.is_complete


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.fixed_dictionaries(
        {"path": grammar_strings, "content": grammar_strings}, optional={"note": grammar_strings}
    )
)
def test_the_parser_reads_what_a_forced_call_says(compiler: Compiler, values: dict[str, str]):
    legal = (
        r'</parameter>\s*(<parameter name="(content|note)">|(</invoke>\s*)?<invoke)'
        r"|</invoke>\s*<invoke"
    )
    values = {key: values[key] for key in ("path", "content", "note") if key in values}
    assume(not any(re.search(legal, value) for value in values.values()))
    state = compiler.start(forced(TEXT_TOOLS, several=True))
    pieces = call_of(TEXT_TOOLS, "write", values)
    assert takes(state, pieces)
    parser = OutputParser(tools=TEXT_TOOLS, starts_in_reasoning=False)
    tags = {i: tag for tag, i in MARKERS.items()}
    events = []
    for piece in pieces:
        events += parser.feed_marker(tags[piece]) if isinstance(piece, int) else parser.feed(piece)
    events += parser.finish()
    fragments = [e.fragment for e in events if isinstance(e, ToolCallArguments)]
    assert json.loads("".join(fragments)) == values


CUSTOM = tool(
    "query",
    type="object",
    required=["input"],
    additionalProperties=False,
    properties={"input": {"type": "string"}},
)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize(
    "pattern, value, fits",
    [
        (r"SELECT [a-z*, ]+ FROM [a-z]+;", "SELECT a, b FROM t;", True),
        (r"SELECT [a-z*, ]+ FROM [a-z]+;", "DROP TABLE t;", False),
        (r"SELECT [a-z*, ]+ FROM [a-z]+;", "SELECT a FROM t; ", False),
        (r"(.|\n)*", "anything\n</parameter> and <invoke", True),
        (r".+", "one line </parameter>", True),
        (r".+", "two\nlines", False),
        (r"a/b\/c", "a/b/c", True),
        (r"[0-9]*", "", True),
    ],
)
def test_a_tool_with_a_pattern_gets_only_what_matches_it(
    compiler: Compiler, pattern: str, value: str, fits: bool, several: bool
):
    tools = [CUSTOM, *TEXT_TOOLS]
    state = compiler.start(forced(tools, several=several, patterns={"query": pattern}))
    call = call_of(tools, "query", {"input": value})
    assert takes(state, call) is fits
    assert state.is_complete is fits


def test_a_pattern_that_is_none_is_named(compiler: Compiler):
    text = forced([CUSTOM], patterns={"query": "(["})
    with pytest.raises(ValueError, match="line") as refused:
        compiler.start(text)
    told = named_refusal(text, str(refused.value).removeprefix("grammar: "))
    assert told.startswith("tool 'query', parameter 'input': ")


def test_references_within_a_tool_lead_somewhere(compiler: Compiler):
    point = '{"x": 1, "y": "a"}'
    state = compiler.start(forced([REFERRING]))
    assert takes(state, call_of([], "zod", {"from": point, "to": point, "all": "[1, 2]"}))
    state = compiler.start(forced([REFERRING]))
    assert not takes(state, call_of([], "zod", {"from": point, "to": '"text"'}))


def test_numbers_have_an_end(compiler: Compiler):
    tools = [
        tool(
            "n",
            type="object",
            properties={
                "i": {"type": "integer"},
                "f": {"type": "number", "description": "any"},
                "o": {"type": "object", "properties": {"i": {"type": ["integer", "null"]}}},
            },
        )
    ]
    for name, least, text in (
        ("i", 40, "9"),
        ("f", 40, "9"),
        ("f", 40, "0.9"),
        ("o", 18, '{"i": 9'),
    ):
        state = compiler.start(forced(tools))
        opening = f'\n<invoke name="n">\n<parameter name="{name}">{text}'
        assert takes(state, ["\n", MARKERS["<minimax:tool_call>"], opening])
        digits = 0
        while digits < 100 and state.accept(BYTE_IDS[b"9"]):
            digits += 1
        assert least - 2 <= digits <= least
    for value in ("-12.5e-7", "1E30", "0"):
        assert takes(compiler.start(forced(tools)), call_of(tools, "n", {"f": value}))


def test_the_tool_whose_schema_is_refused_is_named(compiler: Compiler):
    bad = tool(
        "bad",
        type="object",
        properties={
            "good": {"type": "integer"},
            "to": {"type": "integer", "minimum": 5, "maximum": 3},
        },
    )
    text = forced([*TEXT_TOOLS, bad])
    with pytest.raises(ValueError, match=r"^grammar: line \d+: ") as caught:
        compiler.start(text)
    reason = named_refusal(text, str(caught.value).removeprefix("grammar: "))
    assert reason.startswith("tool 'bad', parameter 'to': failed to compile")


def test_the_rules_of_a_forced_call_are_linear_in_its_schema():
    def size(num_tools: int, num_parameters: int) -> int:
        tools = [
            tool(f"t{i}", properties={f"p{j}": {"type": "string"} for j in range(num_parameters)})
            for i in range(num_tools)
        ]
        return len(forced(tools, several=True))

    assert size(128, 2) < 3 * size(64, 2)
    assert size(2, 128) < 3 * size(2, 64)


ODD_SCHEMAS = {
    "color": {"$ref": "#/$defs/Color"},
    "maybe": {"anyOf": [{"enum": ["red", "blue"]}, {"type": "null"}]},
    "mixed": {"enum": ["red", None, 5, ""], "type": ["string", "null", "integer"]},
    "first": {"$ref": "#/properties/maybe/anyOf/0"},
    "default": {"$ref": "#/$defs/N"},
    "enum": {"type": "object", "properties": {"enum": {"type": "integer"}}},
    "nullable": {"type": ["number", "null"]},
}
ODD = tool(
    "odd",
    type="object",
    properties=ODD_SCHEMAS,
    **{"$defs": {"Color": {"type": "string", "enum": ["red", "blue"]}, "N": {"type": "integer"}}},
)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("color", ["red", "blue"], ["purple"]),
        ("maybe", ["red", "null"], ["purple"]),
        ("mixed", ["red", "null", "5", ""], ["6"]),
        ("first", ["blue"], ["purple"]),
        ("default", ["5", "-12"], ["x", "1.5", "9" * 30]),
        ("enum", ['{"enum": 5}'], ['{"enum": ' + "9" * 30 + "}"]),
        ("nullable", ["null", "1.5"], ["x", "9" * 41]),
    ],
)
def test_schemas_are_followed_wherever_they_lead(
    compiler: Compiler, name: str, good: list[str], bad: list[str]
):
    grammar = forced([ODD])
    for value in good:
        assert takes(compiler.start(grammar), call_of([], "odd", {name: value})), value
    for value in bad:
        assert not takes(compiler.start(grammar), call_of([], "odd", {name: value})), value


def test_a_pointer_to_nothing_is_named_as_the_tool_has_it(compiler: Compiler):
    lost = {"type": "object", "properties": {"x": {"$ref": "#/$defs/nope"}}}
    text = forced([tool("lost", type="object", properties={"to": lost})])
    with pytest.raises(ValueError, match="grammar: ") as caught:
        compiler.start(text)
    reason = named_refusal(text, str(caught.value).removeprefix("grammar: "))
    assert "expertmesh" not in reason
    assert "'/$defs/nope'" in reason


def test_blanks_may_stand_between_the_tags_that_end_a_string(compiler: Compiler):
    pieces = call_of([], "write", {"path": "a", "content": "b"})
    odd = [
        piece if isinstance(piece, int) else piece.replace("</parameter>\n", "</parameter> \n\n")
        for piece in pieces
    ]
    assert takes(compiler.start(forced(TEXT_TOOLS)), odd)
