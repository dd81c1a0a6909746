"""OpenAI messages become what the template takes; what cannot is refused by field."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_model.chat.messages import normalise_messages
from moe_model.chat.thinking import cut_inline_thinking
from tests.support.examples import examples

USER = {"role": "user", "content": "hi"}


def call(arguments: Any, name: str = "run", call_id: str | None = None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    return result if call_id is None else {**result, "id": call_id}


def assistant(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, **fields}


def test_null_and_list_content_become_text() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert normalise_messages([{"role": "user", "content": parts}, assistant()]) == [
        {"role": "user", "content": "a b"},
        {"role": "assistant", "content": ""},
    ]


def test_the_input_is_not_changed() -> None:
    message = assistant(tool_calls=[call("{}")], reasoning="r", content="<think>x")
    before = repr(message)
    normalise_messages([message])
    assert repr(message) == before


def test_system_and_developer_texts_that_open_the_conversation_are_merged() -> None:
    messages = [
        {"role": "system", "content": "a", "current_date": "2026-01-02", "name": "x"},
        {"role": "developer", "content": "b"},
        {"role": "system", "content": ""},
        {"role": "system", "content": [{"type": "text", "text": "c"}]},
        USER,
    ]
    assert normalise_messages(messages) == [
        {"role": "system", "content": "a\n\nb\n\nc", "current_date": "2026-01-02"},
        USER,
    ]


BRIEF = {"role": "developer", "content": "be brief"}
REMINDER = "<system-reminder>\nbe brief\n</system-reminder>"


def test_a_later_system_text_ends_the_users_turn_before_it() -> None:
    empty = {"role": "system", "content": ""}
    turns = normalise_messages([USER, empty, BRIEF, assistant(content="so"), USER])
    assert turns[0] == {"role": "user", "content": f"hi\n\n{REMINDER}"}
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]


def test_a_system_text_after_an_answer_opens_the_users_next_turn() -> None:
    before = [USER, assistant(content="so")]
    assert normalise_messages([*before, BRIEF, BRIEF, USER]) == [
        *normalise_messages(before),
        {"role": "user", "content": f"{REMINDER}\n\n{REMINDER}\n\nhi"},
    ]
    alone = {"role": "user", "content": REMINDER}
    assert normalise_messages([*before, BRIEF]) == [*normalise_messages(before), alone]
    assert normalise_messages([*before, BRIEF, assistant(content="b")])[2] == alone


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_system_text_among_tool_results_follows_them_and_is_no_turn(place: int) -> None:
    calls = [{"id": i, "function": {"name": "f", "arguments": "{}"}} for i in ("a", "b")]
    run = [
        {"role": "assistant", "reasoning_content": "r", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "second"}]},
        {"role": "tool", "tool_call_id": "a", "content": "first"},
    ]
    turns = normalise_messages([USER, *run[:place], BRIEF, *run[place:]])
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool"]
    assert turns[1]["reasoning_content"] == "r"
    assert turns[2]["content"] == "first"
    assert turns[3]["content"] == [{"type": "text", "text": f"second\n\n{REMINDER}"}]


def test_a_reminder_that_is_one_already_is_not_wrapped_again() -> None:
    turns = normalise_messages([USER, {"role": "system", "content": REMINDER}])
    assert turns == [{"role": "user", "content": f"hi\n\n{REMINDER}"}]


@pytest.mark.parametrize(
    ("fields", "reasoning", "content"),
    [
        ({"reasoning_content": "r", "content": "c"}, "r", "c"),
        ({"reasoning": "r", "content": "c"}, "r", "c"),
        ({"reasoning_details": [{"text": "r"}, {"text": "s"}], "content": "c"}, "rs", "c"),
        ({"content": "<think>\nr\n</think>\n\nc"}, "r", "c"),
        ({"content": "r\n</think>\n\nc"}, "r", "c"),
        ({"content": "<think>\na </think> is said\n</think>\n\nc"}, "a </think> is said", "c"),
        ({"content": "<think>r</think>c</think>d"}, "r", "c</think>d"),
        ({"content": "<think>\nnever closed"}, "never closed", ""),
        ({"content": "<think> opens thinking."}, None, "<think> opens thinking."),
        ({"content": "`</think>` ends it."}, "", "`</think>` ends it."),
        (
            {"content": 're.sub(r"<think>.*?</think>", "", s)'},
            "",
            're.sub(r"<think>.*?</think>", "", s)',
        ),
        (
            {"content": "Write <think>\n</think>\nto close."},
            "",
            "Write <think>\n</think>\nto close.",
        ),
        ({"reasoning_content": "r", "content": "<think>x</think> y"}, "r", "<think>x</think> y"),
        ({"content": "mentions <think> only"}, None, "mentions <think> only"),
        ({"reasoning_content": "r", "content": "<think>\nr\n</think>\n\nc"}, "r", "c"),
        ({"reasoning_content": "r", "content": "the </think> tag"}, "r", "the </think> tag"),
        ({"reasoning_content": "", "content": "<think>r</think>c"}, "r", "c"),
        ({"reasoning_content": "r", "reasoning": "s", "content": "c"}, "r", "c"),
        ({"reasoning_content": 5, "content": "c"}, None, "c"),
        ({"reasoning_details": "r", "content": "c"}, None, "c"),
        ({"reasoning_details": [None, 1, {"text": 2}, {}], "content": "c"}, None, "c"),
        ({"content": "</think>"}, None, ""),
    ],
)
def test_thinking_of_all_four_forms(fields: Any, reasoning: str | None, content: str) -> None:
    (result,) = normalise_messages([assistant(**fields)])
    assert result.get("reasoning_content") == reasoning
    assert result["content"] == content


@examples(200)
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "\n", "a", " ", "<thi", "nk>"]), max_size=12
    ).map("".join)
)
def test_no_text_of_an_answer_is_lost_beside_its_thinking(content: str) -> None:
    reasoning, rest = cut_inline_thinking(content)
    if rest == content:
        assert reasoning == ""
        return
    opened = content.lstrip()
    assert opened.startswith("<think>") or "\n</think>" in f"\n{content}"
    said = content.replace("<think>", "", 1) if opened.startswith("<think>") else content
    cuts = [(said[: tag.start()], said[tag.end() :]) for tag in re.finditer("</think>", said)]
    assert (reasoning.strip(), rest.strip()) in [
        (before.strip(), after.strip()) for before, after in [*cuts, (said, "")]
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": [1, null, "x"]}', {"a": [1, None, "x"]}),
        ({"a": 1}, {"a": 1}),
        ("", {}),
        (None, {}),
        ("{}", {}),
    ],
)
def test_arguments_become_mappings(arguments: Any, expected: Any) -> None:
    (result,) = normalise_messages([assistant(tool_calls=[call(arguments)])])
    assert result["tool_calls"] == [call(expected)]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "robot", "content": "x"}, "messages[1].role"),
        ({"role": None, "content": "x"}, "messages[1].role"),
        ({"content": "x"}, "messages[1].role"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": [5]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]},
            "messages[1].content[0].type",
        ),
    ],
)
def test_bad_messages_that_nobody_has_answered_are_refused_by_field(
    message: Any, field: str
) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(field) + ": "):
        normalise_messages([USER, message])


def test_no_messages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^messages: "):
        normalise_messages([])


def test_results_follow_the_order_of_their_calls() -> None:
    calling = assistant(tool_calls=[call("{}", call_id="c1"), call("{}", call_id="c2")])
    results = [
        {"role": "tool", "content": "second", "tool_call_id": "c2"},
        {"role": "tool", "content": "first", "tool_call_id": "c1"},
    ]
    normalised = normalise_messages([calling, *results])
    assert [message["content"] for message in normalised[1:]] == ["first", "second"]
    unknown = [{**results[0], "tool_call_id": "c9"}, results[1]]
    normalised = normalise_messages([calling, *unknown])
    assert [message["content"] for message in normalised[1:]] == ["second", "first"]


def test_parts_of_a_tool_result_stay_apart() -> None:
    parts = [{"type": "text", "text": "a"}, "b"]
    calling = assistant(tool_calls=[call("{}")])
    assert normalise_messages([calling, {"role": "tool", "content": parts}])[1]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert normalise_messages([calling, {"role": "tool", "content": []}])[1]["content"] == ""
    assert normalise_messages([calling, {"role": "tool", "content": None}])[1]["content"] == ""
