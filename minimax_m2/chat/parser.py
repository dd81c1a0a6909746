"""What is thinking, answer and tool call in the text that M2 produces?

The text is read once, from left to right, and may be cut anywhere: what is reported does not
depend on the cuts, only on the text. Held back are at most one newline and one tag with what
follows it, a few hundred characters.

The rules where the format is ambiguous (it has no escaping):

- Tags in a parameter's value are part of the value, except these. `</parameter>` ends it only
  when the next non-blank text is an opening parameter tag or a closing invoke tag, or, for
  output that lacks closing tags, an opening invoke tag, the closing wrapper or the end. An
  opening parameter tag ends it when that parameter is declared and not given yet; `</invoke>`
  when another invoke, the closing wrapper or the end follows; the closing wrapper when another
  wrapper or the end follows.
- The opening wrapper ends the thinking. `<think>` opens thinking wherever no answer text has come
  since the start, the last `</think>` or the last call; a repeated one is dropped, and so is a
  `</think>` outside thinking.
- An invoke of a tool that the request does not offer is answer text. Without any tools the tool
  tags are ordinary text everywhere.
- Of the blanks between the parts those are dropped that the chat template writes there: one
  newline after `<think>` and before `</think>`, the newline and blank line after it, one newline
  before a tool call; after a call all blanks. Parsing a rendered message gives the message back.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from minimax_m2.chat.call_arguments import CallArguments
from minimax_m2.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    coalesce,
)
from minimax_m2.chat.tags import NoTag, Tag, TagKind, match_tag
from minimax_m2.chat.value_end import ends_value


class _State(Enum):
    REASONING = auto()
    CONTENT = auto()
    CALLS = auto()  # in the wrapper, between invokes
    INVOKE = auto()  # in an invoke, between parameters
    VALUE = auto()


class _Sink(Enum):
    """Where an invoke goes."""

    CALL = auto()
    TEXT = auto()  # unknown tool: repeated as answer text
    DROP = auto()  # a second call although the request allows one


_CALLS_TAGS = (
    TagKind.INVOKE_START,
    TagKind.INVOKE_END,
    TagKind.PARAMETER_END,
    TagKind.CALLS_START,
    TagKind.CALLS_END,
    TagKind.THINK_END,
)
_INVOKE_TAGS = (
    TagKind.PARAMETER_START,
    TagKind.PARAMETER_END,
    TagKind.INVOKE_START,
    TagKind.INVOKE_END,
    TagKind.CALLS_END,
)


class OutputParser:
    """Incremental parser of one answer. Never raises; time is linear in the text."""

    def __init__(
        self,
        *,
        tools: Sequence[dict[str, Any]],
        starts_in_reasoning: bool = True,
        parallel_tool_calls: bool = True,
    ) -> None:
        """Start one answer.

        Args:
            tools: the tools of the request, as `validate_tools` accepts them.
            starts_in_reasoning: whether the prompt ended with `<think>`.
            parallel_tool_calls: if false, calls after the first are dropped.
        """
        functions = [tool["function"] for tool in tools]
        self._parameters_of_tool = {f["name"]: f.get("parameters") for f in functions}
        self._allows_several = parallel_tool_calls
        self._state = _State.REASONING if starts_in_reasoning else _State.CONTENT
        self._buffer = ""
        self._events: list[ParserEvent] = []
        self._num_tool_calls = 0
        self._newlines_to_skip = 0
        self._skips_blanks = False
        self._is_fresh = True  # no answer text since the start, the thinking or a call
        self._in_wrapper = False
        self._sink = _Sink.DROP
        self._call = CallArguments(None)

    @property
    def in_reasoning(self) -> bool:
        """Whether the text is in the thinking now."""
        return self._state is _State.REASONING

    @property
    def num_tool_calls(self) -> int:
        """Calls started so far; when above 0, `finish_reason` is "tool_calls"."""
        return self._num_tool_calls

    def feed(self, text: str) -> list[ParserEvent]:
        """Take more text and report what is certain."""
        self._buffer += text
        self._run(is_end=False)
        return self._take_events()

    def finish(self) -> list[ParserEvent]:
        """The output has ended: report what was held back, close an open call."""
        self._run(is_end=True)
        if self._state is _State.VALUE:
            self._close_value()
        if self._state is _State.INVOKE:
            self._end_call(is_complete=False)
        return self._take_events()

    def _take_events(self) -> list[ParserEvent]:
        events, self._events = self._events, []
        return coalesce(events)

    def _run(self, *, is_end: bool) -> None:
        buffer, position = self._buffer, 0
        while position < len(buffer):
            reached = self._advance(buffer, position, is_end)
            if reached == position:
                break
            position = reached
        self._buffer = buffer[position:]

    def _advance(self, buffer: str, start: int, is_end: bool) -> int:
        """Handle the next stretch of text, "<" or tag; gives the position reached."""
        at = buffer.find("<", start)
        if at < 0:
            text_end = len(buffer)
            if buffer[-1] == "\n" and not is_end:
                text_end -= 1
            self._text(buffer[start:text_end])
            return text_end
        before = at - 1 if at > start and buffer[at - 1] == "\n" else at
        if before > start:  # first, since what the tag means may depend on this text
            self._text(buffer[start:before])
            return before
        tag = self._tag_that_counts(buffer, at, is_end)
        if tag is NoTag.UNDECIDED:
            return start
        if isinstance(tag, Tag):
            if self._keeps_newline_before(tag):
                self._text(buffer[start:at])
            self._act(tag, buffer[at : tag.end])
            return tag.end
        self._text(buffer[start : at + 1])
        return at + 1

    def _tag_that_counts(self, buffer: str, at: int, is_end: bool) -> Tag | NoTag:
        """The tag at this place, if in the present state it is more than text."""
        tag = match_tag(buffer, at, is_end=is_end)
        if not isinstance(tag, Tag):
            return tag
        kind = tag.kind
        if self._state is _State.REASONING:
            counts = kind in (TagKind.THINK_START, TagKind.THINK_END) or (
                kind is TagKind.CALLS_START and bool(self._parameters_of_tool)
            )
        elif self._state is _State.CONTENT:
            counts = self._counts_in_content(tag)
        elif self._state is _State.CALLS:
            counts = kind in _CALLS_TAGS
        elif self._state is _State.INVOKE:
            counts = kind in _INVOKE_TAGS
        elif kind is TagKind.PARAMETER_START:
            counts = self._call.expects(tag.name)
        else:
            ends = ends_value(tag, buffer, is_end=is_end)
            if ends is None:
                return NoTag.UNDECIDED
            counts = ends
        return tag if counts else NoTag.NEVER

    def _counts_in_content(self, tag: Tag) -> bool:
        if tag.kind is TagKind.THINK_START:
            return self._is_fresh
        if tag.kind is TagKind.THINK_END:
            return True
        if not self._parameters_of_tool:
            return False
        if tag.kind is TagKind.INVOKE_START:
            return tag.name in self._parameters_of_tool
        if tag.kind in (TagKind.CALLS_END, TagKind.INVOKE_END):
            return self._is_fresh
        return tag.kind is TagKind.CALLS_START

    def _keeps_newline_before(self, tag: Tag) -> bool:
        """Whether a newline before the tag is text, not the template's."""
        if self._state is _State.REASONING:
            return tag.kind is TagKind.THINK_START
        if self._state is _State.CONTENT:
            return tag.kind is TagKind.THINK_END
        if self._state is _State.CALLS:
            return False
        is_value = self._state is _State.VALUE and tag.kind is TagKind.PARAMETER_END
        return is_value or self._sink is _Sink.TEXT

    def _text(self, text: str) -> None:
        """Report text of the present state."""
        if self._state is _State.REASONING:
            self._emit_reasoning(self._without_skipped(text))
        elif self._state is _State.CONTENT:
            self._emit_content(self._without_skipped(text))
        elif self._state is _State.CALLS:
            self._emit_content(text.lstrip() if self._is_fresh else text)
        elif self._sink is _Sink.TEXT:
            self._emit_content(text)
        elif self._state is _State.VALUE:
            self._emit_arguments(self._call.write(text))

    def _without_skipped(self, text: str) -> str:
        """Less the blanks that belong to the format at this place."""
        if self._skips_blanks:
            text = text.lstrip()
            self._skips_blanks = not text
        while self._newlines_to_skip and text.startswith("\n"):
            text = text[1:]
            self._newlines_to_skip -= 1
        if text:
            self._newlines_to_skip = 0
        return text

    def _act(self, tag: Tag, raw: str) -> None:
        """Change state by a tag that counts."""
        if self._state in (_State.REASONING, _State.CONTENT):
            self._act_outside_calls(tag)
        elif self._state is _State.CALLS:
            self._act_between_calls(tag, raw)
        else:
            self._act_in_call(tag, raw)

    def _act_outside_calls(self, tag: Tag) -> None:
        if tag.kind is TagKind.THINK_START:
            self._enter(_State.REASONING, newlines_to_skip=1)
        elif tag.kind is TagKind.THINK_END:
            if self.in_reasoning or self._is_fresh:
                self._enter(_State.CONTENT, newlines_to_skip=2)
                self._is_fresh = True
        elif tag.kind is TagKind.CALLS_START:
            self._in_wrapper = True
            self._enter(_State.CALLS)
            self._is_fresh = True
        elif tag.kind is TagKind.INVOKE_START:
            self._start_call(tag, "")
        else:  # a closing tag with nothing open
            self._skips_blanks = True

    def _act_between_calls(self, tag: Tag, raw: str) -> None:
        if tag.kind is TagKind.INVOKE_START:
            self._start_call(tag, raw)
        elif tag.kind is TagKind.CALLS_END:
            self._leave_wrapper()

    def _act_in_call(self, tag: Tag, raw: str) -> None:
        if self._state is _State.VALUE:
            self._close_value()
        if tag.kind is TagKind.INVOKE_START:
            self._end_call(is_complete=True)
            self._start_call(tag, raw)
        elif tag.kind is TagKind.CALLS_END:
            self._end_call(is_complete=True)
            self._leave_wrapper()
        else:
            if self._sink is _Sink.TEXT:
                self._emit_content(raw)
            if tag.kind is TagKind.PARAMETER_START:
                self._state = _State.VALUE
                self._emit_arguments(self._call.open(tag.name))
            elif tag.kind is TagKind.INVOKE_END:
                self._end_call(is_complete=True)

    def _enter(self, state: _State, *, newlines_to_skip: int = 0) -> None:
        self._state = state
        self._newlines_to_skip = newlines_to_skip
        self._skips_blanks = False

    def _start_call(self, tag: Tag, raw: str) -> None:
        self._enter(_State.INVOKE)
        self._call = CallArguments(self._parameters_of_tool.get(tag.name))
        if tag.name not in self._parameters_of_tool:
            self._sink = _Sink.TEXT
            self._emit_content(raw)
        elif self._num_tool_calls and not self._allows_several:
            self._sink = _Sink.DROP
        else:
            self._sink = _Sink.CALL
            self._events.append(ToolCallStart(self._num_tool_calls, tag.name))
            self._num_tool_calls += 1

    def _close_value(self) -> None:
        self._state = _State.INVOKE
        self._emit_arguments(self._call.close())

    def _end_call(self, *, is_complete: bool) -> None:
        if self._sink is _Sink.CALL:
            self._emit_arguments(self._call.finish())
            self._events.append(ToolCallEnd(self._num_tool_calls - 1, is_complete))
        self._enter(_State.CALLS if self._in_wrapper else _State.CONTENT)
        self._skips_blanks = True
        self._is_fresh = True

    def _leave_wrapper(self) -> None:
        self._in_wrapper = False
        self._enter(_State.CONTENT)
        self._skips_blanks = True
        self._is_fresh = True

    def _emit_reasoning(self, text: str) -> None:
        if text:
            self._events.append(ReasoningDelta(text))

    def _emit_content(self, text: str) -> None:
        if text:
            self._events.append(ContentDelta(text))
            self._is_fresh = self._is_fresh and text.isspace()

    def _emit_arguments(self, fragment: str) -> None:
        if fragment and self._sink is _Sink.CALL:
            self._events.append(ToolCallArguments(self._num_tool_calls - 1, fragment))
