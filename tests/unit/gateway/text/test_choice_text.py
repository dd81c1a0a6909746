"""Row C9, F3 and the seams: ids become the same text however they are cut."""

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.text.choice_text import ChatText, PlainText
from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    coalesce,
)
from moe_model.chat.thinking import cut_inline_thinking
from moe_model.families.minimax_m2.family import MINIMAX_M2
from moe_model.families.minimax_m2.parser import OutputParser
from moe_model.families.minimax_m2.tags import MARKERS
from tests.support.moe_model.chat.spelled_output import quoted, units_of
from tests.support.places import ROOT

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}}},
    }
]
CALL = (
    '<minimax:tool_call>\n<invoke name="f">\n'
    '<parameter name="x">5</parameter>\n</invoke>\n</minimax:tool_call>'
)


class ByteTokens:
    """A tokenizer whose ids are bytes, so that every cut can happen. Markers have higher ids."""

    marker_ids: ClassVar = {tag: 256 + i for i, tag in enumerate(sorted(MARKERS))}
    _tags = sorted(MARKERS)

    def detokenizer(self) -> Any:
        from moe_model.text.detokenizer import IncrementalDetokenizer

        return IncrementalDetokenizer(
            lambda i: bytes([i]) if i < 256 else self._tags[i - 256].encode()
        )

    def ids_of(self, text: str | bytes) -> list[int]:
        if isinstance(text, bytes):
            return list(text)
        ids: list[int] = []
        for unit, is_token in units_of(text):
            ids += [self.marker_ids[unit]] if is_token else list(unit.encode())
        return ids


def chat(
    text: str | bytes,
    *,
    stops: tuple[str, ...] = (),
    tools: bool = False,
    inline: bool = False,
    starts_in_reasoning: bool = True,
    is_cut: bool = False,
) -> tuple[list[ParserEvent], ChatText]:
    choice = ChatText(
        ByteTokens(),
        MINIMAX_M2.chat_format,
        parser=OutputParser(tools=TOOLS if tools else [], starts_in_reasoning=starts_in_reasoning),
        stops=stops,
        reasoning_in_content=inline,
    )
    events: list[ParserEvent] = []
    for token_id in ByteTokens().ids_of(text):
        events += choice.push(token_id)
        if choice.stopped:
            break
    return coalesce(events + choice.finish(is_cut=is_cut)), choice


def plain(text: str | bytes, stops: tuple[str, ...] = ()) -> tuple[str, PlainText]:
    choice = PlainText(ByteTokens(), stops=stops)
    out = ""
    for byte in text.encode() if isinstance(text, str) else text:
        out += "".join(event.text for event in choice.push(byte))
        if choice.stopped:
            break
    return out + "".join(event.text for event in choice.finish()), choice


def test_thinking_and_answer_are_apart() -> None:
    events, _ = chat("why\n</think>\n\nbecause")
    assert events == [ReasoningDelta("why"), ContentDelta("because")]


def test_tokens_of_thinking_are_counted_with_its_end() -> None:
    _, choice = chat("why\n</think>\n\nbecause")
    assert choice.reasoning_tokens == len("why\n") + 1


def test_thinking_that_never_ends_stays_thinking() -> None:
    events, choice = chat("why oh why")
    assert events == [ReasoningDelta("why oh why")]
    assert choice.reasoning_tokens == 10


@pytest.mark.parametrize("stop", ["STOP", "é", "汉字", "T", "</div>"])
def test_a_stop_string_is_cut_exactly(stop: str) -> None:
    events, choice = chat(f"x\n</think>\n\nbefore{stop}after", stops=(stop,))
    assert events == [ReasoningDelta("x"), ContentDelta("before")]
    assert choice.stopped


def test_stop_strings_do_not_count_inside_thinking() -> None:
    events, choice = chat("STOP here\n</think>\n\nanswer", stops=("STOP",))
    assert events == [ReasoningDelta("STOP here"), ContentDelta("answer")]
    assert not choice.stopped


def test_the_beginning_of_a_stop_string_is_given_back_at_the_end() -> None:
    events, choice = chat("x\n</think>\n\nanswer STO", stops=("STOP",))
    assert events[-1] == ContentDelta("answer STO")
    assert not choice.stopped


def test_a_held_back_beginning_comes_before_the_tool_call() -> None:
    events, _ = chat(f"x\n</think>\n\nSTO\n{CALL}", stops=("STOP",), tools=True)
    kinds = [type(event) for event in events]
    assert kinds == [ReasoningDelta, ContentDelta, ToolCallStart, ToolCallArguments, ToolCallEnd]
    assert events[1] == ContentDelta("STO")


def test_a_stop_string_does_not_span_a_tool_call() -> None:
    events, choice = chat(f"x\n</think>\n\nST\n{CALL}OP", stops=("STOP",), tools=True)
    assert not choice.stopped
    assert [e.text for e in events if isinstance(e, ContentDelta)] == ["ST", "OP"]


def test_tool_calls_are_counted_and_unfinished_ones_apart() -> None:
    _, whole = chat(f"x\n</think>\n\n{CALL}", tools=True)
    assert (whole.tool_calls, whole.unfinished_tool_calls) == (1, 0)
    _, cut = chat(f"x\n</think>\n\n{CALL[:60]}", tools=True)
    assert (cut.tool_calls, cut.unfinished_tool_calls) == (1, 1)


def test_half_a_character_before_a_marker_is_not_lost() -> None:
    choice = ChatText(
        ByteTokens(),
        MINIMAX_M2.chat_format,
        parser=OutputParser(tools=[]),
        stops=(),
        reasoning_in_content=False,
    )
    events = [*choice.push(0xE2), *choice.push(ByteTokens.marker_ids["</think>"])]
    events += [*choice.push(ord("a")), *choice.finish()]
    assert coalesce(events) == [ReasoningDelta("\ufffd"), ContentDelta("a")]


def test_a_tag_spelled_with_ordinary_tokens_is_text() -> None:
    events, _ = chat(quoted("a </think> b") + "\n</think>\n\n" + quoted(CALL), tools=False)
    assert events == [ReasoningDelta("a </think> b"), ContentDelta(CALL)]
    events, choice = chat("a\n</think>\n\nLike this: " + quoted(CALL), tools=True)
    assert events == [ReasoningDelta("a"), ContentDelta(f"Like this: {CALL}")]
    assert choice.tool_calls == 0


def test_inline_thinking_reads_back_as_what_it_was() -> None:
    events, _ = chat("why\n\nwhy not\n</think>\n\nbecause", inline=True)
    assert events == [ContentDelta("<think>\nwhy\n\nwhy not\n</think>\n\nbecause")]
    assert cut_inline_thinking(events[0].text) == ("why\n\nwhy not", "because")


def test_inline_thinking_is_closed_before_a_tool_call() -> None:
    events, _ = chat(f"why\n</think>\n\n{CALL}", inline=True, tools=True)
    assert events[0] == ContentDelta("<think>\nwhy\n</think>\n\n")
    assert isinstance(events[1], ToolCallStart)


def test_inline_stop_strings_still_leave_thinking_alone() -> None:
    events, _ = chat("STOP\n</think>\n\nanSTOPswer", inline=True, stops=("STOP",))
    assert events == [ContentDelta("<think>\nSTOP\n</think>\n\nan")]


def test_events_never_hold_half_a_character() -> None:
    choice = PlainText(ByteTokens(), stops=())
    pieces = [choice.push(byte) for byte in "🙂汉".encode()]
    assert [len(piece) for piece in pieces] == [0, 0, 0, 1, 0, 0, 1]


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    text, _ = plain(b"a\xff\xe2\x82b\xf0\x9f")
    assert text == "a\ufffd\ufffdb\ufffd"
    text.encode()


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.lists(st.text(alphabet="ab\n<é", min_size=1, max_size=4), min_size=1, max_size=4),
    st.text(alphabet="ab\n<é", max_size=20),
)
def test_plain_text_is_cut_at_the_first_complete_stop_string(
    head: str, stops: list[str], tail: str
) -> None:
    text = head + tail
    got, choice = plain(text, tuple(stops))
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert (got, choice.stopped) == (text, False)
        return
    end = min(ends)
    longest = max(len(stop) for stop in stops if text[:end].endswith(stop))
    assert (got, choice.stopped) == (text[: end - longest], True)


def test_the_module_needs_no_torch() -> None:
    source = (ROOT / "gateway").rglob("*.py")
    assert not [path.name for path in source if "import torch" in path.read_text()]
