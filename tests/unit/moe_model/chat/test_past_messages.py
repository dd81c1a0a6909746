"""Old turns are rendered by their meaning or shown as text, and never refused."""

import itertools
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_model.chat import tool_history
from moe_model.chat.messages import normalise_messages
from moe_model.chat.repairs import Repair
from moe_model.chat.template import ChatTemplate
from moe_model.chat.tool_history import safe_name
from tests.support.moe_model.chat.rendering import render_text
from tests.support.moe_model.chat.samples import MARKERS

USER = {"role": "user", "content": "hi"}
GO_ON = {"role": "user", "content": "go on"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
PNG = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
DOCUMENT = {"type": "document", "source": {"type": "base64", "data": "AAAA"}}


def left_out(kind: str) -> str:
    return f"[{kind}: left out, this model reads text only]"


def history(*messages: Any) -> tuple[list[dict[str, Any]], Counter[Repair]]:
    """Between two messages of the user, as the template takes them, and what was repaired."""
    repairs: Counter[Repair] = Counter()
    normalised = normalise_messages([USER, *messages, GO_ON], repairs)
    return normalised[1:-1], +repairs


def calling(arguments: Any, name: Any = "run") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}


def arguments_of(arguments: Any) -> tuple[Any, int]:
    """As they are rendered, and whether that was counted."""
    (message,), repairs = history(calling(arguments))
    return message["tool_calls"][0]["function"]["arguments"], repairs[Repair.ARGUMENTS]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ('"{\\"command\\": \\"ls\\"}"', {"command": "ls"}),
        (json.dumps(json.dumps('{"a": 1}')), {"a": 1}),
        ('{"command": "a\nb\tc"}', {"command": "a\nb\tc"}),
        ('{"a": NaN, "b": -Infinity}', {"a": "NaN", "b": "-Infinity"}),
    ],
)
def test_arguments_that_can_mean_one_thing_only_are_read_so(arguments: Any, meant: Any) -> None:
    assert arguments_of(arguments) == (meant, 1)


@pytest.mark.parametrize(
    "arguments", [None, "", " \n", "null", "[]", "{}", '""', [], {}, '"{}"', '"null"']
)
def test_arguments_of_nothing_are_empty(arguments: Any) -> None:
    assert arguments_of(arguments)[0] == {}


@pytest.mark.parametrize(
    "arguments",
    [
        '{"command": "cd /x && git',
        "{'command': 'ls'}",
        "{",
        "[1]",
        "5",
        "0",
        "false",
        '"ls -la"',
        '{"a": 1, "a": 2}',
        '{"a": 1} and more',
        '{"a": ' + "[" * 100_000,
        '{"a": ' + "[" * 200 + "]" * 200 + "}",
    ],
)
def test_other_arguments_are_one_parameter_with_their_text(arguments: str) -> None:
    assert arguments_of(arguments) == ({"arguments": arguments}, 1)


def test_arguments_beyond_all_measure_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    monkeypatch.setattr(
        tool_history, "loads", lambda text, **_: parsed.append(len(text)) or json.loads(text)
    )
    many = '{"a": [' + "{}," * 40_000 + "{}]}"
    turns, repairs = history(*[calling(many)] * 10)
    shown = [turn["tool_calls"][0]["function"]["arguments"] for turn in turns]
    assert [list(arguments) for arguments in shown] == [["a"]] * 2 + [["arguments"]] * 8
    assert shown[-1]["arguments"] == many
    assert len(parsed) == 2
    assert repairs[Repair.ARGUMENTS] == 8


@pytest.mark.parametrize(
    ("arguments", "text"), [([1, "é"], '[1, "é"]'), (5, "5"), (0, "0"), (False, "false")]
)
def test_values_that_are_no_object_are_one_parameter_with_their_json(
    arguments: Any, text: str
) -> None:
    assert arguments_of(arguments) == ({"arguments": text}, 1)


@pytest.mark.parametrize(
    "number",
    ["1e400", "-1e400", "1" * 5000, "1" * 300, "0.1234567890123456789", "1e-400", "1e-" + "9" * 30],
)
def test_numbers_keep_every_digit(number: str) -> None:
    arguments, repaired = arguments_of('{"a": %s, "b": [%s]}' % (number, number))  # noqa: UP031
    assert str(arguments["a"]) == str(arguments["b"][0]) == number
    assert not repaired


@pytest.mark.parametrize("value", [0.1, 1.5e300, -0.0, 0.30000000000000004, 2**64, 10**40, 7])
def test_numbers_that_python_holds_stay_numbers(value: float) -> None:
    (read,) = arguments_of(json.dumps({"a": value}))[0].values()
    assert (type(read), repr(read)) == (type(value), repr(value))


def test_a_value_as_deep_as_the_parser_writes_comes_back() -> None:
    value: Any = "x"
    for _ in range(100):
        value = [value]
    assert arguments_of(json.dumps({"a": value})) == ({"a": value}, 0)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("run", "run"),
        ("my tool/v2.größe", "my tool/v2.größe"),
        ("a" * 70, "a" * 70),
        ('a"b', r"a\u0022b"),
        ("<b>", r"\u003cb\u003e"),
        ("a\n\0\x7f", r"a\u000a\u0000\u007f"),
        ("\ud83d", r"\ud83d"),
        (r"C:\temp\users", r"C:\temp\users"),
        (r"a\u0022b", r"a\u005cu0022b"),
        ("", ""),
    ],
)
def test_names_can_stand_between_quotes(name: str, safe: str) -> None:
    for arguments in ({name: 1}, json.dumps({name: 1})):
        (message,), repairs = history(calling(arguments, name=name))
        function = message["tool_calls"][0]["function"]
        assert function == {"name": safe, "arguments": {safe: 1}}
        assert repairs[Repair.NAME] == (0 if name and name == safe else 2)


@given(st.lists(st.text(alphabet='\\u0022"<c>5\ud800'), min_size=2, max_size=2, unique=True))
def test_different_names_stay_different(names: list[str]) -> None:
    assert len({safe_name(name) for name in names}) == 2


@pytest.mark.parametrize("name", [None, 5, ["x"], {"a": 1}])
def test_names_that_are_no_text_become_text(name: Any) -> None:
    (message,), repairs = history(calling("{}", name=name))
    assert message["tool_calls"][0]["function"]["name"] == safe_name(
        "" if name is None else json.dumps(name)
    )
    assert repairs[Repair.NAME] == 1


@pytest.mark.parametrize(
    ("call", "name", "arguments"),
    [
        ({"name": "run", "arguments": '{"a": 1}'}, "run", {"a": 1}),
        (
            {"type": "custom", "custom": {"name": "patch", "input": "*** Begin"}},
            "patch",
            {"arguments": "*** Begin"},
        ),
        (5, "", {"arguments": "5"}),
        ("ls", "", {"arguments": "ls"}),
        ({"function": "run"}, "", {"function": "run"}),
        (None, "", {}),
    ],
)
def test_calls_of_other_shapes_are_still_calls(call: Any, name: str, arguments: Any) -> None:
    for calls in ([call], call) if call else ([call],):
        (message, result), _ = history(
            {"role": "assistant", "tool_calls": calls}, {"role": "tool", "content": "x"}
        )
        assert message["tool_calls"][0]["function"] == {"name": name, "arguments": arguments}
        assert result == {"role": "tool", "content": "x"}


def test_the_older_function_call_and_its_result_are_a_call_and_its_result() -> None:
    call = {"name": "run", "arguments": '{"a": 1}'}
    turns, repairs = history(
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "run", "content": "done"},
    )
    assert turns[0]["tool_calls"][0]["function"] == {"name": "run", "arguments": {"a": 1}}
    assert turns[1] == {"role": "tool", "content": "done"}
    assert not repairs


@pytest.mark.parametrize("calls", [None, [], "", 0, False, {}])
def test_no_calls_are_no_calls(calls: Any) -> None:
    (message,), _ = history({"role": "assistant", "content": "so", "tool_calls": calls})
    assert message == {"role": "assistant", "content": "so"}


def stand_in(*names: str) -> dict[str, Any]:
    calls = [{"type": "function", "function": {"name": n, "arguments": {}}} for n in names]
    return {"role": "assistant", "content": "", "tool_calls": calls}


@pytest.mark.parametrize("role", ["tool", "function"])
def test_a_result_without_its_call_gets_one_and_stays_a_tools_word(role: str) -> None:
    compacted = {"role": "assistant", "content": "summary"}
    orphans = [
        {"role": role, "tool_call_id": "c1", "content": "x"},
        {"role": role, "name": "run", "content": "y"},
    ]
    turns, repairs = history(compacted, *orphans)
    assert turns == [
        compacted,
        stand_in("unknown", "run"),
        {"role": "tool", "content": "x"},
        {"role": "tool", "content": "y"},
    ]
    assert repairs == {Repair.RESULT: 2}
    turns, _ = history(orphans[0], USER, orphans[1])
    assert [turn["role"] for turn in turns] == ["assistant", "tool", "user", "assistant", "tool"]


@pytest.mark.parametrize("role", ["tool", "function"])
def test_an_orphan_that_opens_or_ends_the_conversation_is_served_too(
    template: ChatTemplate, role: str
) -> None:
    orphan = {"role": role, "content": "x"}
    for messages in ([orphan], [orphan, USER], [USER, orphan], [USER, orphan, GO_ON, orphan]):
        turns = normalise_messages(messages)
        assert {turn["content"] for turn in turns if turn["role"] == "user"} <= {"hi", "go on"}
        assert "<response>x</response>" in render_text(template, turns, None)


@pytest.mark.parametrize(
    ("content", "text", "repaired"),
    [
        ([{"type": "refusal", "refusal": "no"}], "no", 0),
        ([{"type": "output_text", "text": "a"}, {"type": "input_text", "text": "b"}], "ab", 0),
        ([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}], "a", 0),
        ([{"text": "a"}, "b"], "ab", 0),
        ([{"type": "text"}, {"type": "text", "text": 5}], "5", 2),
        ([PICTURE], left_out("image_url"), 1),
        ([PNG, "b"], left_out("image") + "b", 1),
        ([DOCUMENT], left_out("document"), 1),
        (PICTURE, left_out("image_url"), 1),
        ([{"type": "input_audio", "input_audio": {"data": "AAAA"}}], left_out("input_audio"), 1),
        ([{"type": "surprise", "n": 1}], '{"type": "surprise", "n": 1}', 1),
        ([5, None, ["x"]], '5["x"]', 3),
        (5, "5", 1),
        (True, "true", 1),
        ({}, "{}", 1),
        ({"type": "file", "path": "é"}, '{"type": "file", "path": "é"}', 1),
        ({"text": "x", "rows": 5}, '{"text": "x", "rows": 5}', 1),
    ],
)
def test_content_of_any_shape_becomes_text(content: Any, text: str, repaired: int) -> None:
    result = {"role": "tool", "content": content}
    turns, repairs = history(
        {"role": "user", "content": content},
        {**calling("{}"), "content": content},
        result,
    )
    assert turns[0]["content"] == turns[1]["content"] == text
    shown = turns[2]["content"]
    assert (shown if isinstance(shown, str) else "".join(p["text"] for p in shown)) == text
    assert repairs[Repair.CONTENT] == 3 * repaired


@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": "why", "signature": "x"},
        {"type": "reasoning", "text": "why"},
        {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "why"}],
        },
    ],
)
def test_parts_of_thinking_are_thinking(part: Any) -> None:
    answer = {"role": "assistant", "content": [part, {"type": "text", "text": "so"}]}
    (turn,), repairs = history(answer)
    assert turn == {"role": "assistant", "content": "so", "reasoning_content": "why"}
    assert not repairs
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    assert history({"role": "assistant", "content": [hidden, "so"]})[0][0]["content"] == "so"


def test_a_refusal_beside_the_content_is_the_answer() -> None:
    (turn,), _ = history({"role": "assistant", "content": None, "refusal": "I cannot."})
    assert turn["content"] == "I cannot."


def test_lone_surrogates_become_replacement_characters() -> None:
    turns, repairs = history(
        {"role": "user", "content": "\ud83d"},
        {**calling('{"a": "x\\ud83d", "b": {"\\ud800": 1, "\\ud801": 2}}'), "content": "\udc00y"},
        {"role": "tool", "content": ["\ud800"]},
    )
    assert turns[0]["content"] == "\ufffd"
    assert turns[1]["content"] == "\ufffdy"
    arguments = turns[1]["tool_calls"][0]["function"]["arguments"]
    assert arguments["a"] == "x\ufffd"
    assert sorted(arguments["b"].values()) == [1, 2]
    assert turns[2]["content"] == [{"type": "text", "text": "\ufffd"}]
    assert repairs == {Repair.TEXT: 3}


@pytest.mark.parametrize("role", ["robot", None, 5, ["user"]])
def test_an_unknown_role_in_the_past_speaks_as_the_user(role: Any) -> None:
    (turn, _), repairs = history(
        {"role": role, "content": "x"}, {"role": "assistant", "content": "y"}
    )
    assert turn == {"role": "user", "content": "x"}
    assert repairs == {Repair.ROLE: 1}


def test_what_is_asked_now_is_judged() -> None:
    answer = {"role": "assistant", "content": "so"}
    for now in ([PICTURE], 5, [{"type": "thinking", "thinking": "x"}]):
        message = {"role": "user", "content": now}
        with pytest.raises(ValueError, match=r"^messages\[2\]\.content"):
            normalise_messages([USER, answer, message])
        with pytest.raises(ValueError, match=r"^messages\[2\]\.content"):
            normalise_messages([USER, answer, message, {"role": "system", "content": "s"}])
        with pytest.raises(ValueError, match=r"^messages\[0\]\.content"):
            normalise_messages([{"role": "system", "content": now}, USER])
    with pytest.raises(ValueError, match=r"^messages\[2\]\.role"):
        normalise_messages([USER, answer, {"role": "robot", "content": "x"}])


def test_a_session_goes_on_after_a_message_that_was_refused() -> None:
    """The client keeps the picture in its history, and the user writes again."""
    refused = {"role": "user", "content": [PICTURE]}
    turns = normalise_messages([USER, {"role": "assistant", "content": "so"}, refused, GO_ON])
    assert [turn["content"] for turn in turns[2:]] == [left_out("image_url"), "go on"]


def test_what_follows_a_picture_in_the_past_is_rendered_alike_ever_after(
    template: ChatTemplate,
) -> None:
    """Growing conversations keep their beginning, so that the prefix cache serves it."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [PICTURE, {"type": "text", "text": "what is it?"}]},
        {"role": "assistant", "content": "a cat"},
        {"role": "system", "content": "be brief"},
        GO_ON,
        calling("{cut"),
        {"role": "tool", "content": {"n": 1}},
        {"role": "developer", "content": "two steps left"},
        {"role": "assistant", "content": "done", "tool_calls": 5},
        {"role": "tool", "content": [PICTURE]},
        {"role": "assistant", "content": "and"},
        {"role": "tool", "content": "orphan"},
    ]
    rendered = [
        render_text(template, normalise_messages(messages[:n]), None, add_generation_prompt=False)
        for n in range(3, len(messages) + 1)
        if messages[n:] == [] or messages[n]["role"] == "assistant"  # it was answered
    ]
    for shorter, longer in itertools.pairwise(rendered):
        assert longer.startswith(shorter)


def test_replayed_markers_are_text(template: ChatTemplate) -> None:
    text = "".join(MARKERS)
    messages = [
        USER,
        {**calling({text: text}, name=text), "content": {"x": text}},
        {"role": "tool", "content": {text: text}},
        {"role": text, "content": [{"type": text, "image": text}, {"type": "image", "url": text}]},
        {"role": "assistant", "content": "x"},
        {"role": "tool", "name": text, "content": text},
    ]
    plain = json.loads(json.dumps(messages).replace(json.dumps(text)[1:-1], "x"))
    plain[3]["role"] = "robot"

    def markers(conversation: Any) -> list[str]:
        segments = template.render(normalise_messages(conversation), None)
        return [segment.text for segment in segments if segment.is_marker]

    assert markers(messages) == markers(plain)
