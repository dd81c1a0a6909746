"""Values of tool parameters come out as the model wrote them, whatever tags they mention."""

import json
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moe_model.chat.events import ContentDelta, ToolCallArguments, ToolCallStart
from moe_model.families.minimax_m2.parser import OutputParser
from tests.support.examples import examples
from tests.support.moe_model.chat.spelled_output import events_of, quoted, units_of


def tool(name: str, *required: str, **properties: Any) -> dict[str, Any]:
    return taking(name, {"properties": properties, "required": list(required)})


def taking(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A tool whose parameters are an object of this schema."""
    parameters = {"type": "object", **schema}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


STRING = {"type": "string"}
TOOLS = [
    tool("write_file", "path", "content", path=STRING, content=STRING),
    tool(
        "edit",
        "path",
        "old",
        "new",
        path=STRING,
        old=STRING,
        new=STRING,
        times={"type": "integer"},
        note=STRING,
    ),
    tool("bash", "command", command=STRING),
    {"type": "function", "function": {"name": "free"}},
]
Call = tuple[str, dict[str, str]]


def rendered(*calls: Call) -> str:
    """Calls as M2's template writes them, with the values spelled as they stand."""
    text = "</think>\n\n\n<minimax:tool_call>\n"
    for name, values in calls:
        text += f'<invoke name="{name}">\n'
        text += "".join(f'<parameter name="{k}">{v}</parameter>\n' for k, v in values.items())
        text += "</invoke>\n"
    return text + "</minimax:tool_call>"


def calls_of(output: str, **options: Any) -> tuple[str, list[tuple[str, Any]]]:
    parser = OutputParser(tools=TOOLS)
    events = events_of(parser, output, **options)
    calls: list[list[str]] = []
    for event in events:
        if isinstance(event, ToolCallStart):
            calls.append([event.name, ""])
        elif isinstance(event, ToolCallArguments):
            calls[-1][1] += event.fragment
    content = "".join(event.text for event in events if isinstance(event, ContentDelta))
    return content, [(name, json.loads(arguments)) for name, arguments in calls]


SERVICES_XML = """<service name="Echo">
  <parameter name="ServiceClass">org.example.Echo</parameter>
  <parameter name="useOriginalwsdl">false</parameter>
</service>
"""
PARSER_TEST = '''TEXT = """<minimax:tool_call>
<invoke name="bash">
<parameter name="command">ls</parameter>
</invoke>
</minimax:tool_call>"""
assert parse(TEXT)
'''


@pytest.mark.parametrize("spell", [quoted, str], ids=["quoted", "tokens"])
@pytest.mark.parametrize(
    "call",
    [
        ("write_file", {"path": "services.xml", "content": SERVICES_XML}),
        ("write_file", {"path": "a.xml", "content": '<parameter name="path">x</parameter>\n'}),
        ("write_file", {"path": "a.xml", "content": '\n<parameter name="content">x'}),
        ("write_file", {"path": "d.md", "content": "</parameter>\n</invoke>\nthen"}),
        ("write_file", {"path": "d.md", "content": '<invoke name="other">\n</invoke>\n'}),
        ("write_file", {"path": '<parameter name="content">', "content": "x"}),
        (
            "edit",
            {"path": "a", "old": '<r><parameter name="new">1</parameter>\n</r>', "new": "<r/>"},
        ),
        (
            "edit",
            {"path": "a", "old": 'x\n<parameter name="new">1</parameter>\n</r>', "new": "<r/>"},
        ),
        ("edit", {"path": "a", "old": 'x\n<parameter name="new">y', "new": "z"}),
        ("edit", {"path": "a", "old": 'x\n<parameter name="new">y', "note": "z", "new": "w"}),
        ("edit", {"path": "a", "old": 'x\n<parameter name="note">y', "new": "z"}),
        ("edit", {"path": "a", "old": 'x\n<parameter name="times">many', "new": "z"}),
        ("edit", {"path": "a", "old": "x", "new": '</parameter>\n<parameter name="zeal">y'}),
        ("edit", {"path": "a", "old": "x", "new": '</parameter>\n<parameter name="path">y'}),
        ("bash", {"command": "echo '</invoke>' '</parameter>' '<invoke name=\"bash\">'"}),
        ("bash", {"command": "</parameter>\n</invoke>\n</parameter>\n</invoke>\n."}),
        ("bash", {"command": "a </parameter></parameter>"}),
        ("bash", {"command": "<think>no</think>"}),
        ("free", {"a": '<parameter name="b">1', "c": '\n<parameter name="d">2'}),
    ],
)
def test_values_with_tags_come_out_whole(call: Call, spell: Any) -> None:
    name, values = call
    spelled = {key: spell(value) for key, value in values.items()}
    assert calls_of(rendered((name, spelled))) == ("", [call])
    assert calls_of(rendered((name, spelled), ("bash", {"command": "ls"})))[1][0] == call


@pytest.mark.parametrize("name", ["write_file", "edit"])
def test_a_file_with_whole_calls_in_it_comes_out_whole(name: str) -> None:
    key = {"write_file": "content", "edit": "old"}[name]
    values = {"path": "test_parser.py", key: PARSER_TEST} | ({"new": "x"} if name == "edit" else {})
    spelled = {k: quoted(v) for k, v in values.items()}
    assert calls_of(rendered((name, spelled))) == ("", [(name, values)])


PIECES = [
    "</parameter>",
    "< / parameter >",
    "</invoke>",
    "<minimax:tool_call>",
    "</minimax:tool_call>",
    "<think>",
    "</think>",
    '<invoke name="bash">',
    '<invoke name="edit">',
    '<invoke name="other">',
    '<parameter name="path">',
    '<parameter name="old">',
    '<parameter name="new">',
    '<parameter name="note">',
    "<parameter name='command'>",
    '<parameter name="undeclared">',
    "\n",
    "\n\n",
    " ",
    "text",
    "7",
    "<",
    "</",
    "<parameter name=",
    '"',
    "é🙂",
]
values = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)
calls = st.lists(
    st.fixed_dictionaries(
        {"path": values, "old": values, "new": values}, optional={"note": values}
    ).map(lambda given: ("edit", given))
    | st.fixed_dictionaries({"command": values}).map(lambda given: ("bash", given))
    | st.fixed_dictionaries({"path": values, "content": values}).map(
        lambda given: ("write_file", given)
    ),
    min_size=1,
    max_size=3,
)


def is_ambiguous(name: str, given: dict[str, str], key: str, *, spelled: bool) -> bool:
    """Whether a value has a legal continuation in it, as docs/tool-calls.md defines it."""
    declared = next(t for t in TOOLS if t["function"]["name"] == name)["function"]["parameters"]
    names = list(given)
    missing = set(declared["properties"]) - set(names[: names.index(key) + 1])
    blanks, end = r"\s{0,128}", r"<\s*/\s*%s\s*>"
    parameter = "|".join(map(re.escape, sorted(missing)))
    opening = r"<\s*%s\s+name\s*=\s*[\"']?(?:%s)[\"']?\s*>"
    invoke = opening % ("invoke", "bash|edit|write_file|free")
    wrapper = r"(?!)" if spelled else "</minimax:tool_call>"
    parameter_end, invoke_end = end % "parameter", end % "invoke"
    after_value = f"{invoke}|{wrapper}" + (
        "|" + opening % ("parameter", parameter) if missing else ""
    )
    unknown_call = rf"{parameter_end}{blanks}{invoke_end}{blanks}" + opening % ("invoke", "other")
    closing = "</minimax:tool_call>.*<minimax:tool_call>"
    value = given[key]
    if re.search(unknown_call, value):  # taken for a misspelt call when whole calls follow
        return True
    return bool(
        re.search(
            f"{parameter_end}{blanks}(?:{invoke_end}{blanks}(?:{invoke}|{wrapper})|{after_value})",
            value,
        )
        or re.search(f"{invoke_end}{blanks}(?:{invoke}|{wrapper})", value)
        or (not spelled and re.search(closing, value, re.DOTALL))
    )


@examples(400)
@given(calls=calls, spelled=st.booleans(), data=st.data())
def test_values_survive_rendering_and_parsing(calls: list[Call], spelled: bool, data: Any) -> None:
    for name, values_given in calls:
        for key, value in values_given.items():
            assume("\x00" not in value and "\r" not in value)
            assume(not is_ambiguous(name, values_given, key, spelled=spelled))
    spell = quoted if spelled else str
    output = rendered(*((n, {k: spell(v) for k, v in vs.items()}) for n, vs in calls))
    cuts = data.draw(st.lists(st.integers(0, len(units_of(output))), max_size=8))
    assert calls_of(output, cuts=cuts) == ("", calls)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        # a required parameter, or one that fits, opened on a new line without a closing tag before
        (
            '<invoke name="write_file">\n<parameter name="path">a\n<parameter name="content">b'
            "</parameter>\n</invoke>\n",
            [("write_file", {"path": "a", "content": "b"})],
        ),
        (
            '<invoke name="edit">\n<parameter name="path">a\n<parameter name="old">b\n'
            '<parameter name="new">c</parameter>\n</invoke>\n',
            [("edit", {"path": "a", "old": "b", "new": "c"})],
        ),
        (
            '<invoke name="edit">\n<parameter name="path">a</parameter>\n<parameter name="old">b\n'
            '<parameter name="times">2</parameter>\n'
            '<parameter name="new">c</parameter>\n</invoke>\n',
            [("edit", {"path": "a", "old": "b", "times": 2, "new": "c"})],
        ),
        # a misspelt second call
        (
            '<invoke name="bash">\n<parameter name="command">ls</parameter>\n</invoke>\n'
            '<invoke name="bsh">\n<parameter name="command">ls</parameter>\n</invoke>\n',
            [("bash", {"command": "ls"}), ("bsh", {"command": "ls"})],
        ),
        # closing tags left out
        (
            '<invoke name="bash">\n<parameter name="command">ls\n</invoke>\n',
            [("bash", {"command": "ls"})],
        ),
        (
            '<invoke name="bash">\n<parameter name="command">ls</parameter>\n',
            [("bash", {"command": "ls"})],
        ),
        (
            '<invoke name="bash">\n<parameter name="command">ls</parameter>\n'
            '<invoke name="bash">\n<parameter name="command">pwd</parameter>\n</invoke>\n',
            [("bash", {"command": "ls"}), ("bash", {"command": "pwd"})],
        ),
    ],
)
@pytest.mark.parametrize("wrapper_end", ["</minimax:tool_call>", ""])
def test_slips_of_the_model_are_made_good(output: str, expected: Any, wrapper_end: str) -> None:
    whole = "</think>\n<minimax:tool_call>\n" + output + wrapper_end
    assert calls_of(whole) == ("", expected)
    assert calls_of(whole, cuts=range(len(whole))) == ("", expected)


def test_values_that_may_have_ended_elsewhere_are_counted() -> None:
    def doubts(value: str) -> int:
        parser = OutputParser(tools=TOOLS)
        events_of(parser, rendered(("write_file", {"path": value, "content": "x"})))
        return parser.num_doubtful_values

    assert doubts("a.py") == 0
    assert doubts(SERVICES_XML) == 0
    assert doubts('a</parameter>\n<parameter name="content">b</parameter> and more') > 0


def test_holding_back_is_bounded_when_nothing_decides() -> None:
    parser = OutputParser(tools=TOOLS)
    parser.feed_marker("</think>")
    parser.feed_marker("<minimax:tool_call>")
    value = 'a\n<parameter name="content">' + "</parameter> <x\n" * 3_000
    text = f'<invoke name="write_file"><parameter name="path">{value}'
    for start in range(0, len(text), 50):
        parser.feed(text[start : start + 50])
        assert len(parser._buffer) < 20_000
    assert len(parser._buffer) < 100


INTEGER = {"type": "integer"}
A_STRING = {"properties": {"a": STRING}, "required": ["a"]}
MAYBE_N = {"properties": {"n": INTEGER}}
TYPED = [
    tool("typed", "n", n={"type": "number"}, o={"type": "object"}, s=STRING),
    taking("open", {"properties": {"a": STRING}, "additionalProperties": INTEGER}),
    taking("inherits", {"$ref": "#/$defs/args", "$defs": {"args": {"allOf": [A_STRING, MAYBE_N]}}}),
    tool("blanks", **{" a": STRING, "b ": STRING}),
    *TOOLS,
]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("write_file", {"path": "a.py", "contents": "x"}), {"path": "a.py", "contents": "x"}),
        (("typed", {"n": "5", "why": "x"}), {"n": 5, "why": "x"}),
        (("open", {"a": "x", "b": "7"}), {"a": "x", "b": 7}),
        (("inherits", {"a": "x", "n": "5"}), {"a": "x", "n": 5}),
        (("blanks", {" a": "x", "b ": "y"}), {" a": "x", "b ": "y"}),
        (("blanks", {"b": "y"}), {"b": "y"}),
        (("bash", {" command ": "ls"}), {"command": "ls"}),
    ],
)
def test_parameters_that_no_string_can_have_swallowed_are_their_own(
    call: Call, expected: dict[str, Any]
) -> None:
    for cuts in ([], range(500)):
        parser = OutputParser(tools=TYPED)
        events = events_of(parser, rendered(call), cuts=cuts)
        arguments = "".join(e.fragment for e in events if isinstance(e, ToolCallArguments))
        assert json.loads(arguments) == expected


def test_a_string_may_quote_a_parameter_that_the_tool_does_not_have() -> None:
    """Only a declared parameter ends a value; one that may have ended earlier is counted."""
    value = 'ls</parameter>\n<parameter name="timeout">5'
    parser = OutputParser(tools=TOOLS)
    events = events_of(parser, rendered(("bash", {"command": value})))
    arguments = "".join(e.fragment for e in events if isinstance(e, ToolCallArguments))
    assert json.loads(arguments) == {"command": value}
    assert parser.num_doubtful_values == 1


@pytest.mark.parametrize("num_lines", [3_000])
def test_many_slips_cost_no_more_than_their_number(num_lines: int) -> None:
    """Each slip looks ahead as far as text may be held back; without a bound this takes minutes."""
    value = "a" + '\n<parameter name="content">z' * num_lines
    value += '</parameter>\n</invoke>\n<invoke name="x">\n' * num_lines
    output = rendered(("write_file", {"path": value, "content": "x"}))
    whole = calls_of(output)
    assert calls_of(output, cuts=range(0, len(output), 997)) == whole


def test_what_is_decided_does_not_depend_on_how_much_comes_at_once() -> None:
    far = 'a\n<parameter name="content">' + "x" * 20_000
    output = rendered(("write_file", {"path": far}), ("bash", {"command": "ls"}))
    whole = calls_of(output)
    assert calls_of(output, cuts=range(0, len(output), 50)) == whole
