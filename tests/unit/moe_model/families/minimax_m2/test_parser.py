"""The output parser: what it reports, and that it does not depend on how output is cut."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from moe_model.families.minimax_m2.parser import OutputParser
from moe_model.families.minimax_m2.value_end import MAX_HELD_CHARS
from tests.support.examples import examples
from tests.support.moe_model.chat.spelled_output import events_of, feed, quoted, units_of


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    tool(
        "run",
        code={"type": "string"},
        times={"type": "integer"},
        options={"type": "object"},
        note={"type": ["string", "null"]},
    ),
    tool("now"),
    {"type": "function", "function": {"name": "bare"}},
]


def parse(
    text: str, *, cuts: Iterable[int] = (), tools: Any = TOOLS, is_cut: bool = False, **options: Any
) -> list[ParserEvent]:
    """Events of the whole output, given in pieces, neighbours joined."""
    return events_of(OutputParser(tools=tools, **options), text, cuts=cuts, is_cut=is_cut)


def summary(text: str, **options: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    """Reasoning, content and calls with parsed arguments."""
    reasoning, content, calls = spoken(text, **options)
    return reasoning, content, [(name, json.loads(arguments)) for name, arguments in calls]


def spoken(text: str, **options: Any) -> tuple[str, str, list[tuple[str, str]]]:
    """Reasoning, content and calls with their arguments as text."""
    events = parse(text, **options)
    calls: list[list[str]] = []
    for event in events:
        if isinstance(event, ToolCallStart):
            assert event.index == len(calls)
            calls.append([event.name, ""])
        elif isinstance(event, ToolCallArguments):
            assert event.index == len(calls) - 1
            calls[-1][1] += event.fragment
    reasoning = "".join(e.text for e in events if isinstance(e, ReasoningDelta))
    content = "".join(e.text for e in events if isinstance(e, ContentDelta))
    return reasoning, content, [(name, arguments) for name, arguments in calls]


def invoke(name: str, *values: tuple[str, str]) -> str:
    lines = [f'<parameter name="{key}">{value}</parameter>\n' for key, value in values]
    return f'<invoke name="{name}">\n' + "".join(lines) + "</invoke>\n"


def wrapped(*invokes: str) -> str:
    return "\n<minimax:tool_call>\n" + "".join(invokes) + "</minimax:tool_call>"


RUN_1 = ("run", {"code": "1"})
CALL_RUN_1 = wrapped(invoke("run", ("code", "1")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", "", [])),
        ("thought\n</think>\n\nanswer", ("thought", "answer", [])),
        ("</think>\n\nanswer", ("", "answer", [])),
        ("\n</think>\n\nanswer", ("", "answer", [])),
        ("a\n\n\n</think>\n\n\nb\n", ("a\n\n", "\nb\n", [])),
        ("only thinking <b>\n", ("only thinking <b>\n", "", [])),
        ("<think>\nthought</think>answer", ("thought", "answer", [])),
        ("a<think>b</think>c", ("ab", "c", [])),
        ("t</think>a</think>b", ("t", "ab", [])),
        ("t</think>\n\n</think>\n\nb", ("t", "b", [])),
        ("t</think>\n\n<think>\nu\n</think>\n\nb", ("tu", "b", [])),
        ("t</think>say <think> aloud", ("t", "say <think> aloud", [])),
        ("t\n</think>\n\n" + CALL_RUN_1, ("t", "", [RUN_1])),
        ("t\n</think>\n\nText." + CALL_RUN_1 + "\n\n", ("t", "Text.", [RUN_1])),
        ("t" + CALL_RUN_1 + "after", ("t", "after", [RUN_1])),
        ("</think>" + CALL_RUN_1 + CALL_RUN_1, ("", "", [RUN_1, RUN_1])),
        ("</think>" + CALL_RUN_1 + "\n<think>\nu</think>v", ("u", "v", [RUN_1])),
        ("</think>" + wrapped(), ("", "", [])),
        ("</think>x < y <b> </b> <", ("", "x < y <b> </b> <", [])),
    ],
)
def test_thinking_content_and_calls_are_told_apart(text: str, expected: Any) -> None:
    assert summary(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wrapped(invoke("now")), [("now", {})]),
        (wrapped('<invoke name="now"></invoke>'), [("now", {})]),
        (wrapped(invoke("run", ("code", "1")), invoke("now")), [RUN_1, ("now", {})]),
        (
            wrapped(invoke("run", ("code", "x"), ("times", "5"), ("options", '{"k": [1]}'))),
            [("run", {"code": "x", "times": 5, "options": {"k": [1]}})],
        ),
        ("<invoke name='now'></invoke>", [("now", {})]),
        ("<invoke name=now></invoke>", [("now", {})]),
        ('< invoke  name = "now" ></ invoke >', [("now", {})]),
        (invoke("run", ("code", "1")), [RUN_1]),
        (invoke("run", ("code", "1")) + "</minimax:tool_call>", [RUN_1]),
        ('<invoke name="run"><parameter name=code>1</parameter></invoke>', [RUN_1]),
        ('<invoke name="run"><parameter name="code">1</parameter>', [RUN_1]),
        ('<invoke name="run"><parameter name="code">1</parameter>\n</minimax:tool_call>', [RUN_1]),
        ('<invoke name="run"><parameter name="code">1\n</invoke>\n</minimax:tool_call>', [RUN_1]),
        ('<invoke name="run"><parameter name="code">1\n</minimax:tool_call>', [RUN_1]),
        ('<invoke name="run">', [("run", {})]),
        (
            '<invoke name="run"><parameter name="code">1\n<parameter name="times">2</parameter>'
            "</invoke>",
            [("run", {"code": "1", "times": 2})],
        ),
        (
            '<invoke name="run"><parameter name="code">1</parameter>'
            '<invoke name="now"></invoke></minimax:tool_call>',
            [RUN_1, ("now", {})],
        ),
        (
            wrapped(
                '<invoke name="run"><parameter name="code">1</parameter></invoke>\n'
                '<invoke name="nope"><parameter name="a">2</parameter></invoke>'
            ),
            [RUN_1, ("nope", {"a": "2"})],
        ),
        (quoted(CALL_RUN_1), [RUN_1]),
        (quoted(wrapped(invoke("run", ("code", "1")), invoke("now"))), [RUN_1, ("now", {})]),
        (wrapped(invoke("run", ("code", "1")), invoke("now"))[:-19], [RUN_1, ("now", {})]),
        (
            wrapped('<invoke name="run">{"code": "1", "x": [2]}</invoke>'),
            [("run", {"code": "1", "x": [2]})],
        ),
        (wrapped(invoke("run", ("other", "2"))), [("run", {"other": "2"})]),
        (wrapped(invoke("bare", ("a", "1"), ("b", "x"))), [("bare", {"a": "1", "b": "x"})]),
        (wrapped(invoke("run", ("note", "null"))), [("run", {"note": None})]),
        (wrapped(invoke("run", ("note", "nullify"))), [("run", {"note": "nullify"})]),
        (wrapped(invoke("run", ("note", "nul"))), [("run", {"note": "nul"})]),
        (wrapped(invoke("run", ("note", ""))), [("run", {"note": ""})]),
        (wrapped(invoke("run", ("code", ""))), [("run", {"code": ""})]),
        (wrapped(invoke("run", ("code", "  a\n\nb \n"))), [("run", {"code": "  a\n\nb \n"})]),
        (wrapped(invoke("run", ("code", '"\\\n\x01é🙂'))), [("run", {"code": '"\\\n\x01é🙂'})]),
        (
            wrapped(invoke("run", ("code", "<![CDATA[&lt;]]>"))),
            [("run", {"code": "<![CDATA[&lt;]]>"})],
        ),
    ],
)
def test_calls_are_recovered(text: str, expected: Any) -> None:
    assert summary("</think>" + text) == ("", "", expected)


@pytest.mark.parametrize(
    "value",
    [
        "</parameter> and more",
        "a</parameter>b",
        "</parameter></parameter>",
        "</parameter>" + " " * 300 + "x",
        "</invoke> is a tag",
        "say <think> and </think>",
        "\n<minimax:tool_call>\nexample\n</minimax:tool_call>\n",
        '<invoke name="now"></invoke> text',
        '<parameter name="undeclared">v',
        '<parameter name="code">v',
        "a < b <= c << d </",
        "<" * 1000,
        "\n" * 500,
    ],
)
def test_tags_inside_a_string_value_are_kept(value: str) -> None:
    text = wrapped(invoke("run", ("code", value), ("times", "3")))
    assert summary("</think>" + text)[2] == [("run", {"code": value, "times": 3})]


def test_a_call_of_a_tool_that_is_not_on_offer_is_a_call() -> None:
    text = "</think>\n\n\n<minimax:tool_call>\n" + invoke("nope", ("a", "1")) + invoke("now")
    expected = [("nope", {"a": "1"}), ("now", {})]
    assert summary(text + "</minimax:tool_call>") == ("", "", expected)
    alone = (
        '<invoke name="nope"><parameter name="a"><invoke name="now"></invoke>x</parameter></invoke>'
    )
    assert summary("</think><minimax:tool_call>" + alone + "</minimax:tool_call>")[2] == [
        ("nope", {"a": '<invoke name="now"></invoke>x'})
    ]


def test_an_unknown_tool_without_a_wrapper_is_answer_text() -> None:
    raw = '<invoke name="nope">\n<parameter name="a">1</parameter>\n</invoke>'
    assert summary("</think>" + raw) == ("", raw, [])


def test_text_in_the_wrapper_is_not_lost() -> None:
    text = '</think><minimax:tool_call>\n{"name": "now"}\n</minimax:tool_call>'
    assert summary(text) == ("", '{"name": "now"}', [])


def test_text_beside_the_parameters_is_not_lost() -> None:
    text = '</think><minimax:tool_call><invoke name="run">ls -l</invoke></minimax:tool_call>'
    assert summary(text) == ("", "ls -l", [("run", {})])
    given = '<invoke name="run">{"x": 1}<parameter name="code">1</parameter></invoke>'
    wrapped_up = "</think><minimax:tool_call>" + given + "</minimax:tool_call>"
    assert summary(wrapped_up) == ("", '{"x": 1}', [RUN_1])


def test_without_tools_tool_tags_are_text_where_they_stand() -> None:
    text = "a <minimax:tool_call> b</think>c" + CALL_RUN_1
    assert summary(text, tools=[]) == ("a <minimax:tool_call> b", "c" + CALL_RUN_1, [])


def test_a_request_for_one_call_gets_at_most_one() -> None:
    text = wrapped(invoke("now"), invoke("run", ("code", "<b>"))) + CALL_RUN_1
    assert summary(text, parallel_tool_calls=False) == ("", "", [("now", {})])


def test_starting_outside_thinking() -> None:
    assert summary("answer", starts_in_reasoning=False) == ("", "answer", [])
    assert summary("<think>\nt\n</think>\n\nanswer", starts_in_reasoning=False) == (
        "t",
        "answer",
        [],
    )


def test_strings_stream_and_typed_values_wait() -> None:
    parser = OutputParser(tools=TOOLS)
    started = feed(parser, '</think><minimax:tool_call><invoke name="run">')
    assert [event for event in started if isinstance(event, ToolCallStart)] == [
        ToolCallStart(0, "run")
    ]
    opened = parser.feed('<parameter name="code">print')
    assert opened == [ToolCallArguments(0, '{"code": "print')]
    assert parser.feed('("x")') == [ToolCallArguments(0, '(\\"x\\")')]
    parser.feed('</parameter><parameter name="times">')
    assert parser.feed("12") == []
    assert parser.feed("3</parameter></invoke>") == []  # a wrapper's end or more text may follow
    closed = parser.feed_marker("</minimax:tool_call>")
    assert closed == [ToolCallArguments(0, "123}"), ToolCallEnd(0)]


def test_thinking_state_is_visible() -> None:
    parser = OutputParser(tools=[])
    assert parser.in_reasoning
    list(feed(parser, "a</think>"))
    assert not parser.in_reasoning


def test_text_is_reported_without_delay() -> None:
    parser = OutputParser(tools=TOOLS)
    assert parser.feed("Let me think") == [ReasoningDelta("Let me think")]
    assert parser.feed(" </thi") == [ReasoningDelta(" ")]
    assert parser.feed("s is no tag") == [ReasoningDelta("</this is no tag")]


def test_an_oversized_typed_value_becomes_a_string(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_model.families.minimax_m2.call_arguments.MAX_TYPED_VALUE_CHARS", 10)
    for value, expected in (("1" * 10, int("1" * 10)), ("1" * 11, "1" * 11)):
        text = "</think>" + wrapped(invoke("run", ("times", value)))
        for cuts in ([], range(len(text))):
            assert summary(text, cuts=cuts)[2] == [("run", {"times": expected})]


SOUP = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<minimax:tool_call>",
            "</minimax:tool_call>",
            quoted("<think>"),
            quoted("</think>"),
            quoted("<minimax:tool_call>"),
            quoted("</minimax:tool_call>"),
            "</parameter>\n</invoke>\n",
            '\n<parameter name="times">12</parameter>',
            '<invoke name="run">',
            "<invoke name='now'>",
            '<invoke name="nope">',
            "< invoke name = bare >",
            "</invoke>",
            '<parameter name="code">',
            '<parameter name="times">',
            '<parameter name="options">',
            '<parameter name="note">',
            "</parameter>",
            "</ parameter >",
            "\n",
            "\n\n",
            " ",
            "text",
            "null",
            "12",
            '{"a": [1, "b"]}',
            '"',
            "\\",
            "<",
            ">",
            "/",
            "<inv",
            "<parameter name=",
            "é🙂",
            "x" * 300,
            " " * 130,
        ]
    )
    | st.text(max_size=4),
    max_size=30,
).map("".join)


@examples(600)
@given(soup=SOUP, data=st.data(), starts=st.booleans(), several=st.booleans(), offers=st.booleans())
def test_cuts_never_matter(soup: str, data: Any, starts: bool, several: bool, offers: bool) -> None:
    num_units = len(units_of(soup))
    cuts = data.draw(st.lists(st.integers(min_value=0, max_value=num_units), max_size=20))
    options: dict[str, Any] = {
        "starts_in_reasoning": starts,
        "parallel_tool_calls": several,
        "tools": TOOLS if offers else [],
        "is_cut": data.draw(st.booleans()),
    }
    whole = parse(soup, **options)
    assert parse(soup, cuts=cuts, **options) == whole
    assert parse(soup, cuts=range(num_units), **options) == whole
    _, _, calls = spoken(soup, **options)
    assert len(calls) <= 1 or several
    started = [event for event in whole if isinstance(event, ToolCallStart)]
    ended = [event for event in whole if isinstance(event, ToolCallEnd)]
    assert [event.index for event in started] == [event.index for event in ended]
    for (_, arguments), end in zip(calls, ended, strict=True):
        if end.complete:
            assert isinstance(json.loads(arguments), dict)
        else:
            with pytest.raises(json.JSONDecodeError):
                json.loads(arguments)


@examples(200)
@given(soup=SOUP)
def test_what_is_held_back_stays_small(soup: str) -> None:
    parser = OutputParser(tools=TOOLS)
    for unit, is_token in units_of(soup):
        _ = parser.feed_marker(unit) if is_token else parser.feed(unit)
        assert len(parser._buffer) <= MAX_HELD_CHARS + 1000


def test_time_is_linear_in_the_text() -> None:
    """A value of 250,000 characters with many half tags passes in bounded steps."""
    text = '<invoke name="run"><parameter name="code">' + "</parameter> <x " * 16_000
    parser = OutputParser(tools=TOOLS)
    num_events = len(parser.feed_marker("</think>"))
    for start in range(0, len(text), 1000):
        num_events += len(parser.feed(text[start : start + 1000]))
        assert len(parser._buffer) <= 1100
    parser.finish()
    assert num_events <= len(text) / 1000 + 4
