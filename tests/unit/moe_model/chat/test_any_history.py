"""Whatever is in old turns, a conversation is rendered, and only the template writes markers."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from moe_model.chat.events import ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallStart
from moe_model.chat.messages import normalise_messages
from moe_model.chat.template import ChatTemplate
from moe_model.families.minimax_m2.parser import OutputParser
from moe_model.text.tokenizer import Tokenizer
from tests.support.examples import examples
from tests.support.moe_model.chat.any_values import ANYTHING, FIELDS, NOW, TEXT, with_values
from tests.support.moe_model.chat.rendering import render_text
from tests.support.moe_model.chat.samples import tokenizer_json, write_checkpoint


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The layout that makes forging easiest: the vocabulary itself leads to the markers."""
    folder = tmp_path_factory.mktemp("in_vocab")
    return Tokenizer.load(write_checkpoint(folder, tokenizer_json("in_vocab")))


@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(FIELDS), ANYTHING), min_size=1, max_size=3))
def test_any_value_in_any_field_of_old_turns_is_rendered(
    template: ChatTemplate, tokenizer: Tokenizer, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    messages = with_values(changes)
    normalised = normalise_messages(messages)
    segments = template.render(normalised, None)
    # The markers depend on the turns alone, not on their texts.
    markers = ["]~!b[", "]~b]", "[e~["]
    last_user = max(i for i, turn in enumerate(normalised) if turn["role"] == "user")
    for index, turn in enumerate(normalised):
        after_tool = index > 0 and normalised[index - 1]["role"] == "tool"
        if turn["role"] != "tool" or not after_tool:
            markers.append("]~b]")
        if turn.get("reasoning_content") and index > last_user:
            markers += ["<think>", "</think>"]
        if "tool_calls" in turn:
            markers += ["<minimax:tool_call>", "</minimax:tool_call>"]
        if turn["role"] != "tool" or normalised[index + 1]["role"] != "tool":
            markers.append("[e~[")
    assert [s.text for s in segments if s.is_marker] == [*markers, "]~b]", "<think>"]
    ids = tokenizer.encode_segments(segments)
    marker_ids = set(tokenizer.marker_ids.values())
    assert sum(token_id in marker_ids for token_id in ids) == len(markers) + 2


@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=TEXT, key=TEXT, value=st.integers())
def test_no_name_reads_as_another_tag(
    template: ChatTemplate, name: str, key: str, value: int
) -> None:
    function = {"name": name, "arguments": {key: value}}
    turn = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    text = render_text(template, normalise_messages([turn]), None, add_generation_prompt=False)
    call = text.split("<minimax:tool_call>", 1)[1]
    assert call.count('"') == 4
    assert call.count("<parameter name=") == call.count("<invoke name=") == 1
    assert call.count("</parameter>") == call.count("</invoke>") == 1


TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "any": {},
                    "map": {"type": "object"},
                    "list": {"type": "array"},
                    "n": {"type": "number"},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "g"}},
]
OUTPUT = st.lists(
    st.sampled_from(
        [
            *("<think>", "</think>", "\n", "<minimax:tool_call>", "</minimax:tool_call>"),
            *('<invoke name="f">', '<invoke name="g">', "<invoke name='h i'>", "</invoke>"),
            *('<parameter name="text">', '<parameter name="map">', '<parameter name="list">'),
            *('<parameter name="n">', "<parameter name='a\\u0022'>", "</parameter>"),
            *('{"k": "\\ud83d"}', '{"\\ud83d": 1}', "[" * 64 + "]" * 64, "[" * 65 + "]" * 65),
            *("1e400", "9" * 5000, "0.1234567890123456789", "NaN"),
            *('{"a": 1, "a": 2}', "{'a': 1}"),
        ]
    )
    | ANYTHING.map(str),
    max_size=14,
).map("".join)


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=OUTPUT, thinks=st.booleans(), several=st.booleans())
def test_what_the_parser_reports_is_taken_back(
    template: ChatTemplate, tokenizer: Tokenizer, text: str, thinks: bool, several: bool
) -> None:
    text = text.encode("utf-8", "replace").decode()  # as a detokenizer gives it
    parser = OutputParser(tools=TOOLS, starts_in_reasoning=thinks, parallel_tool_calls=several)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "",
        "reasoning_content": "",
        "tool_calls": [],
    }
    for event in (*parser.feed(text), *parser.finish()):
        if isinstance(event, ReasoningDelta):
            message["reasoning_content"] += event.text
        elif isinstance(event, ContentDelta):
            message["content"] += event.text
        elif isinstance(event, ToolCallStart):
            message["tool_calls"].append({"function": {"name": event.name, "arguments": ""}})
        elif isinstance(event, ToolCallArguments):
            message["tool_calls"][event.index]["function"]["arguments"] += event.fragment
    result = {"role": "tool", "content": "done"}
    turns = normalise_messages([NOW, message, result])
    assert len(turns[1].get("tool_calls", [])) == len(message["tool_calls"])
    tokenizer.encode_segments(template.render(turns, TOOLS))
