"""A call that the output's end cuts off can be told from a whole one."""

import json

import pytest

from moe_model.chat.events import ContentDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from moe_model.families.minimax_m2.parser import OutputParser
from tests.support.moe_model.chat.spelled_output import events_of, units_of


def tool(name: str, *required: str) -> dict:
    properties = {key: {"type": "string"} for key in (*required, "note")} | {
        "count": {"type": "integer"},
        "options": {"type": "object"},
    }
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [tool("write_file", "path", "content"), tool("bash", "command"), tool("now")]
OPENING = "</think>\n\n\n<minimax:tool_call>\n"
WHOLE = '<invoke name="bash">\n<parameter name="command">ls</parameter>\n</invoke>\n'
FILE = (
    '<invoke name="write_file">\n<parameter name="path">a.py</parameter>\n'
    '<parameter name="content">import os\nos.remove("x")\n</parameter>\n</invoke>\n'
)


def calls_of(output: str, *, is_cut: bool) -> tuple[str, list[tuple[str, str, bool]]]:
    """Content, and of each call the name, the arguments and whether it is complete."""
    content, calls = "", []
    for event in events_of(OutputParser(tools=TOOLS), output, is_cut=is_cut):
        if isinstance(event, ContentDelta):
            content += event.text
        elif isinstance(event, ToolCallStart):
            calls.append([event.name, "", False])
        elif isinstance(event, ToolCallArguments):
            calls[event.index][1] += event.fragment
        elif isinstance(event, ToolCallEnd):
            calls[event.index][2] = event.complete
    return content, [tuple(call) for call in calls]


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


@pytest.mark.parametrize("is_cut", [True, False], ids=["limit", "stop"])
@pytest.mark.parametrize(
    ("end", "arguments"),
    [
        ('<invoke name="write_file">', "{"),
        ('<invoke name="write_file">\n<para', "{"),
        ('<invoke name="write_file">\n<parameter name="path">a.p', '{"path": "a.p'),
        (
            '<invoke name="write_file">\n<parameter name="path">a.py</parameter>\n',
            '{"path": "a.py"',
        ),
        (
            '<invoke name="write_file">\n<parameter name="path">a.py</parameter>\n'
            '<parameter name="con',
            '{"path": "a.py"',
        ),
        (
            '<invoke name="bash">\n<parameter name="command">rm -rf /tmp/x',
            '{"command": "rm -rf /tmp/x',
        ),
        ('<invoke name="bash">\n<parameter name="count">12', '{"count": '),
        ('<invoke name="bash">\n<parameter name="options">{"a": 1}', '{"options": '),
    ],
)
def test_a_call_without_its_end_has_open_arguments(end: str, arguments: str, is_cut: bool) -> None:
    content, calls = calls_of(OPENING + WHOLE + end, is_cut=is_cut)
    assert content == ""
    assert calls[0] == ("bash", '{"command": "ls"}', True)
    name, given, complete = calls[1]
    assert given in (
        arguments,
        arguments.removesuffix('"'),
    )  # whether the value had ended is unsure
    assert not is_json(given)
    assert not complete
    assert name in end


@pytest.mark.parametrize("end", ["<inv", "<invoke name", '<invoke name="bash', "\n<invoke"])
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_call_cut_before_its_name_leaves_nothing(end: str, is_cut: bool) -> None:
    assert calls_of(OPENING + WHOLE + end, is_cut=is_cut) == (
        "",
        [("bash", '{"command": "ls"}', True)],
    )
    assert calls_of(OPENING + end, is_cut=is_cut) == ("", [])
    assert calls_of("</think>" + end, is_cut=is_cut)[1] == []


@pytest.mark.parametrize(
    "end",
    [
        "</parameter>\n</invoke>\n",
        "</parameter>\n</invoke>\n<",
        "</parameter>\n</inv",
        "</invoke>",
        "</invoke>\n<invoke",
        "</invoke>\n</minimax",
        '</parameter>\n</invoke>\n<invoke name="other',
    ],
)
def test_at_a_limit_no_end_counts_that_may_be_part_of_the_value(end: str) -> None:
    opening = '<invoke name="bash">\n<parameter name="command">cat <<E\n'
    _, calls = calls_of(OPENING + opening + end, is_cut=True)
    assert calls == [("bash", '{"command": "cat <<E', False)] or not is_json(calls[0][1])
    assert not calls[0][2]


@pytest.mark.parametrize(
    "end",
    [
        '<invoke name="write_file">\n</minimax:tool_call>',
        '<invoke name="write_file">\n<parameter name="path">see </invoke>',
        '<invoke name="write_file">\n<parameter name="path">'
        'a</parameter>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
    ],
)
def test_with_closing_tags_left_out_nothing_required_may_be_missing(end: str) -> None:
    _, calls = calls_of(OPENING + end, is_cut=False)
    assert calls[0][0] == "write_file"
    assert not calls[0][2]
    assert not is_json(calls[0][1])


@pytest.mark.parametrize("tail", ['<parameter name="no', "<", "<par"])
def test_a_stop_in_the_next_opening_tag_leaves_the_call_open(tail: str) -> None:
    output = OPENING + '<invoke name="bash">\n<parameter name="command">rm x</parameter>\n' + tail
    assert calls_of(output, is_cut=False)[1] == [("bash", '{"command": "rm x"', False)]
    closing = output.removesuffix(tail) + "</inv"
    assert calls_of(closing, is_cut=False)[1] == [("bash", '{"command": "rm x"}', True)]


@pytest.mark.parametrize(
    ("beside", "is_cut", "arguments", "complete"),
    [
        ('{"command": "rm -rf /tmp', True, '{"command": "rm -rf /tmp', False),
        ('{"command": "ls"}', True, '{"command": "ls"', False),
        ('{"command": "ls"}', False, '{"command": "ls"}', True),
        ('{"note": "ls"}', False, '{"note": "ls"', False),
        ('{"command": "ls",}\n</invoke>\n</minimax:tool_call>', False, '{"command": "ls",}', False),
    ],
)
def test_an_object_in_place_of_parameters_is_never_content(
    beside: str, is_cut: bool, arguments: str, complete: bool
) -> None:
    output = OPENING + '<invoke name="bash">\n' + beside
    assert calls_of(output, is_cut=is_cut) == ("", [("bash", arguments, complete)])


QUOTING = (
    '<invoke name="write_file">\n'
    '<parameter name="path">see </parameter> in a</invoke></parameter>\n'
    '<parameter name="content"><a></invoke>\n<parameter name="path">x</parameter>\n</invoke>\n'
    "<b/>\n</invoke>\n.</parameter>\n</invoke>\n"
)


@pytest.mark.parametrize("call", [FILE, QUOTING], ids=["plain", "quoting"])
def test_wherever_an_answer_is_cut_no_part_is_taken_for_the_whole(call: str) -> None:
    output = OPENING + WHOLE + call + "</minimax:tool_call>"
    whole = [arguments for _, arguments, _ in calls_of(output, is_cut=False)[1]]
    units = units_of(output)
    for num_units in range(len(units)):
        cut = "".join(unit for unit, _ in units[:num_units])
        content, calls = calls_of(cut, is_cut=True)
        assert not content.strip()
        for index, (_, arguments, complete) in enumerate(calls):
            assert whole[index].startswith(arguments) or arguments == "{"
            assert complete == is_json(arguments) == (arguments == whole[index])


def test_a_model_that_ends_by_itself_may_leave_the_last_tags_out() -> None:
    for missing in ("", "</minimax:tool_call>", "</invoke>\n</minimax:tool_call>"):
        output = (OPENING + FILE + "</minimax:tool_call>").removesuffix(missing)
        assert calls_of(output, is_cut=False)[1][0][2]
    required_is_missing = '<invoke name="write_file">\n<parameter name="path">a.py</parameter>'
    assert calls_of(OPENING + required_is_missing, is_cut=False)[1] == [
        ("write_file", '{"path": "a.py"', False)
    ]
    assert calls_of(OPENING + '<invoke name="now">', is_cut=False)[1] == [("now", "{}", True)]
