"""What an answer of the model is taken for."""

import json
from typing import Any

import pytest

from expertmesh.agent.loop.answers import Kind, answer_text, assistant_message, kind_of
from expertmesh.agent.prompts import language_of, system_prompt
from expertmesh.clients.chat import Reply
from tests.support.places import ROOT


def call(arguments: str, call_id: str = "c1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    ("reason", "arguments", "content", "kind"),
    [
        ("tool_calls", ["{}"], "", Kind.CALLS),
        ("tool_calls", ['{"a": '], "", Kind.CALLS),
        ("stop", ['{"a": 1}'], "", Kind.CALLS),
        ("stop", [""], "", Kind.CALLS),
        ("stop", ["{}", '{"a": '], "", Kind.CUT),
        ("length", ["{}"], "", Kind.CUT),
        ("length", [], "half an ans", Kind.CUT),
        ("content_filter", [], "text", Kind.CUT),
        (None, ["{}"], "", Kind.CUT),
        ("stop", [], "text", Kind.FINAL),
        ("stop", [], " \n", Kind.EMPTY),
        ("stop", [], "<think>hm</think>\n", Kind.EMPTY),
        ("tool_calls", [], "text", Kind.FINAL),
    ],
)
def test_kinds(reason: str | None, arguments: list[str], content: str, kind: Kind) -> None:
    calls = [call(one) for one in arguments]
    assert kind_of(Reply(content=content, tool_calls=calls, finish_reason=reason)) is kind


def test_only_calls_that_are_made_stay_in_the_history() -> None:
    reply = Reply(content="x", reasoning="hm", tool_calls=[call("{}")], finish_reason="length")
    assert assistant_message(reply, Kind.CUT, 1) == {
        "role": "assistant",
        "content": "x",
        "reasoning_content": "hm",
    }


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "nonsense", "[" * 9999])
def test_arguments_that_servers_would_refuse_become_text(arguments: str) -> None:
    reply = Reply(tool_calls=[call(arguments, "")], finish_reason="tool_calls")
    (kept,) = assistant_message(reply, Kind.CALLS, 3)["tool_calls"]
    assert kept["id"] == "call_3_1"
    assert json.loads(kept["function"]["arguments"]) == {"malformed": arguments[:500]}


def test_thinking_that_a_server_left_in_the_answer_is_not_shown() -> None:
    assert answer_text("<think>hm</think>\n\nyes") == "yes"
    assert answer_text("the tag <think>") == "the tag <think>"


@pytest.mark.parametrize(
    ("task", "language"),
    [
        ("Fix the failing test", "en"),
        ("Translate 你好 to English", "en"),
        ("修复 tests/test_foo.txt 的失败", "zh"),
        ("算一下 2**100", "zh"),
        ("123 * 4", "en"),
        ("", "en"),
    ],
)
def test_the_language_of_a_task(task: str, language: str) -> None:
    assert language_of(task) == language
    prompt = system_prompt(task, ROOT, ())
    assert str(ROOT) in prompt
    assert ("你在" in prompt) == (language == "zh")


@pytest.mark.parametrize("task", ["task", "任务"])
def test_the_prompt_names_only_tools_that_there_are(task: str) -> None:
    assert "update_plan" not in system_prompt(task, ROOT, ("shell",))
    whole = system_prompt(task, ROOT, ("update_plan", "file_editor"))
    assert "update_plan" in whole
    assert "[update_plan]" not in whole
    assert len(whole.splitlines()) == 10


def test_every_call_of_an_answer_has_an_id_of_its_own() -> None:
    """Servers refuse a conversation in which two calls have one id."""
    calls = [{**call("{}"), "id": given} for given in ("a", "a", "", "call_3_3", "a_2")]
    kept = assistant_message(Reply(tool_calls=calls, finish_reason="tool_calls"), Kind.CALLS, 3)[
        "tool_calls"
    ]
    ids = [one["id"] for one in kept]
    assert ids[0] == "a"
    assert len(set(ids)) == len(calls)
    assert all(ids)
