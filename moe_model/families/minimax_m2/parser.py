"""What of M2's output is thinking, answer and tool call?

The output is read once, from left to right, and may be cut anywhere: what is reported depends
only on the text and on which tags in it are tokens (`tags.py`). Little is held back: a newline, or
a tag with what follows it; up to `MAX_HELD_CHARS` for two rare slips (`value_end.py`).
docs/tool-calls.md has the rules as users see them.

The rules where the format is ambiguous (it has no escaping):

- Think and wrapper tags count when they are tokens. Spelled with ordinary tokens they are text, but
  for a wrapper at the very beginning of the answer with an invoke of an offered tool in it.
- What ends a parameter's value: see `value_end.py`.
- The opening wrapper ends the thinking. `<think>` opens thinking wherever no answer text has come
  since the start, the last `</think>` or the last call; a repeated one is dropped, and so is a
  `</think>` outside thinking that closes nothing in the answer's text.
- In a wrapper every invoke is a call, even of a tool that is not offered: only then can the client
  answer it. Without a wrapper one counts where no answer text has come, when its tool is on offer
  and a parameter or its end follows. Without any tools the tool tags are text everywhere.
- An object in place of parameters is the arguments; other text there is answer text.
- The blanks that the chat template writes between the parts are dropped: one
  newline after `<think>` and before `</think>`, the newline and blank line after it, one newline
  before a tool call; after a call all blanks. Parsing a rendered message gives the message back.
- A call that the end of the output cuts off has arguments that are not valid JSON. When the model
  ended by itself, closing tags missing at the end are added if the tool's required parameters are
  there and the last value was closed.
"""

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    coalesce,
)
from moe_model.families.minimax_m2.format_blanks import FormatBlanks
from moe_model.families.minimax_m2.open_call import INVOKE_TAGS, OpenCall
from moe_model.families.minimax_m2.tags import (
    MARKER_KINDS,
    TAG_START,
    NoTag,
    Tag,
    TagKind,
    as_text,
    marker,
    match_tag,
    next_tag,
    without_surrogates,
)


class _State(Enum):
    REASONING = auto()
    CONTENT = auto()
    CALLS = auto()  # in the wrapper, between invokes
    CALL = auto()  # in an invoke


_CALLS_TAGS = (TagKind.INVOKE_START, TagKind.INVOKE_END, TagKind.PARAMETER_END, *MARKER_KINDS)


_NEXT_CALL = re.compile(r"\n?<\s*/\s*parameter\s*>\s*<\s*/\s*invoke\s*>\s*(<i[^<>]*)")


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
        self._blanks = FormatBlanks()
        self._is_fresh = True  # no answer text since the start, the thinking or a call
        self._follows_call = False  # fresh after a call
        self._quoted_thinks = 0  # opening think tags in the answer's text that nothing closed yet
        self._in_wrapper = False
        self._by_tokens = False  # the wrapper was opened by its token
        self._may_spell = True  # the wrapper, or leave it out: no answer text and no token yet
        self._lost_opening = False  # the output ended in an opening tag
        self._drops_call = False  # a second call although the request allows one
        self._call = self._open_call("")
        self.num_doubtful_values = 0
        """Values that may have ended elsewhere: a slip was corrected, or closing tags or text
        were left over after one."""

    @property
    def in_reasoning(self) -> bool:
        """Whether the text is in the thinking now."""
        return self._state is _State.REASONING

    def feed(self, text: str) -> list[ParserEvent]:
        """Take more text, of ordinary tokens, and report what is certain."""
        return self._take(without_surrogates(text))

    def feed_marker(self, tag: str) -> list[ParserEvent]:
        """Take a marker token by its text, one of `tags.MARKERS`, and report what is certain."""
        return self._take(marker(tag))

    def finish(self, *, is_cut: bool = False) -> list[ParserEvent]:
        """The output has ended: report what was held back, and end an open call.

        Args:
            is_cut: by a limit, not by the model.
        """
        if is_cut and self._state in (_State.CALLS, _State.CALL) and not self._next_has_begun():
            self._buffer = ""  # no end of a value is certain
        self._run(is_end=True)
        if self._state is _State.CALL:
            is_complete = not is_cut and not self._lost_opening and self._call.may_end_here
            self._end_call(is_complete=is_complete, is_cut=is_cut)
        return self._take_events()

    def _next_has_begun(self) -> bool:
        """Whether the output ends in the tag of another call: then the one before it is whole."""
        found = _NEXT_CALL.fullmatch(self._buffer)
        tags = (f'<invoke name="{name}">' for name in self._parameters_of_tool)
        return found is not None and any(tag.startswith(found[1]) for tag in tags)

    def _is_lost_in(self, beginning: str) -> bool:
        """Whether the output has ended in a tag of a call, so that `beginning` is not text."""
        if self._state is _State.CONTENT:
            may_call = self._is_fresh and bool(self._parameters_of_tool)
            word = beginning[1:].lstrip()[:6]
            return may_call and len(word) > 1 and "invoke".startswith(word)
        return self._state is not _State.REASONING

    def _take(self, text: str) -> list[ParserEvent]:
        self._buffer += text
        self._run(is_end=False)
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
        found = TAG_START.search(buffer, start)
        if not found:
            text_end = len(buffer)
            if buffer[-1] == "\n" and not is_end:
                text_end -= 1
            self._text(buffer[start:text_end])
            return text_end
        at = found.start()
        before = at - 1 if at > start and buffer[at - 1] == "\n" else at
        if before > start:  # first, since what the tag means may depend on this text
            self._text(buffer[start:before])
            return before
        tag = match_tag(buffer, at)
        if tag is NoTag.UNDECIDED and not is_end:
            return start
        if tag is NoTag.UNDECIDED and self._is_lost_in(buffer[at:]):
            self._lost_opening = not buffer[at + 1 :].lstrip().startswith("/")
            return len(buffer)
        counts: bool | None = False
        if isinstance(tag, Tag):
            counts = self._counts(tag, buffer, at, starts_line=at > start, is_end=is_end)
        if counts is None:
            return start
        if counts and isinstance(tag, Tag):
            if self._keeps_newline_before(tag):
                self._text(buffer[start:at])
            self._act(tag)
            return tag.end
        if isinstance(tag, Tag) and self._state is _State.CONTENT:
            opens, closes = tag.kind is TagKind.THINK_START, tag.kind is TagKind.THINK_END
            self._quoted_thinks = max(0, self._quoted_thinks + opens - closes)
        self._text(as_text(buffer[start : at + 1]))
        return at + 1

    def _counts(
        self, tag: Tag, buffer: str, at: int, *, starts_line: bool, is_end: bool
    ) -> bool | None:
        """Whether the tag is more than text in the present state; None if too early to tell."""
        kind = tag.kind
        if self._state is _State.REASONING:
            offers_any = bool(self._parameters_of_tool)
            is_think = kind in (TagKind.THINK_START, TagKind.THINK_END)
            return tag.is_token and (is_think or (kind is TagKind.CALLS_START and offers_any))
        if self._state is _State.CONTENT:
            return self._counts_in_content(tag, buffer, is_end)
        if self._state is _State.CALLS:
            return kind in _CALLS_TAGS and (
                tag.is_token or not (self._by_tokens and kind in MARKER_KINDS)
            )
        return self._call.counts(tag, buffer, at, starts_line=starts_line, is_end=is_end)

    def _counts_in_content(self, tag: Tag, buffer: str, is_end: bool) -> bool | None:
        if tag.kind is TagKind.THINK_START:
            return tag.is_token and self._is_fresh
        if tag.kind is TagKind.THINK_END:
            return tag.is_token and not self._quoted_thinks
        if not self._parameters_of_tool:
            return False
        if tag.kind is TagKind.CALLS_START and tag.is_token:
            return True
        if not self._is_fresh:
            return False
        if tag.kind in (TagKind.CALLS_END, TagKind.INVOKE_END):  # with nothing open
            return tag.is_token or (self._follows_call and self._may_spell)
        if not self._may_spell:
            return False
        if tag.kind is TagKind.CALLS_START:
            follower = next_tag(buffer, tag.end, is_end=is_end)
            counts = isinstance(follower, Tag) and follower.kind is TagKind.INVOKE_START
            counts = counts and self._offers(follower.name)
        elif tag.kind is TagKind.INVOKE_START and self._offers(tag.name):
            follower = next_tag(buffer, tag.end, is_end=is_end)
            counts = follower is NoTag.END or (
                isinstance(follower, Tag) and follower.kind in INVOKE_TAGS
            )
        else:
            return False
        return None if follower is NoTag.UNDECIDED else counts

    def _offers(self, name: str) -> bool:
        return name.strip() in self._parameters_of_tool

    def _keeps_newline_before(self, tag: Tag) -> bool:
        """Whether a newline before the tag is text, not the template's."""
        if self._state is _State.REASONING:
            return tag.kind is TagKind.THINK_START
        if self._state is _State.CONTENT:
            return tag.kind is TagKind.THINK_END
        return self._state is _State.CALL and tag.kind is TagKind.PARAMETER_END

    def _text(self, text: str) -> None:
        """Report text of the present state."""
        if self._state is _State.REASONING:
            self._emit_reasoning(self._blanks.strip(text))
        elif self._state is _State.CONTENT:
            self._emit_content(self._blanks.strip(text))
        elif self._state is _State.CALLS:
            self._emit_content(text.lstrip() if self._is_fresh else text)
        else:
            self._emit_arguments(self._call.text(text))

    def _act(self, tag: Tag) -> None:
        """Change state by a tag that counts."""
        if self._state in (_State.REASONING, _State.CONTENT):
            self._act_outside_calls(tag)
        elif self._state is _State.CALLS:
            self._act_between_calls(tag)
        else:
            self._act_in_call(tag)

    def _act_outside_calls(self, tag: Tag) -> None:
        if tag.kind is TagKind.THINK_START:
            self._enter(_State.REASONING, newlines=1)
        elif tag.kind is TagKind.THINK_END and self._in_wrapper:
            self._after_call(_State.CALLS)
        elif tag.kind is TagKind.THINK_END:
            if self.in_reasoning or self._is_fresh:
                self._enter(_State.CONTENT, newlines=2)
                self._is_fresh, self._follows_call = True, False
        elif tag.kind is TagKind.CALLS_START:
            self._in_wrapper, self._by_tokens = True, tag.is_token
            self._may_spell = self._may_spell and not tag.is_token
            self._enter(_State.CALLS)
            self._is_fresh = True
        elif tag.kind is TagKind.INVOKE_START:
            self._start_call(tag)
        else:  # a closing tag with nothing open
            self._blanks.expect(any_number=True)

    def _act_between_calls(self, tag: Tag) -> None:
        if tag.kind is TagKind.INVOKE_START:
            self._start_call(tag)
        elif tag.kind is TagKind.CALLS_END:
            self._leave_wrapper()
        elif tag.kind is TagKind.THINK_START:
            self._enter(_State.REASONING, newlines=1)
        else:
            self.num_doubtful_values += tag.kind in (TagKind.PARAMETER_END, TagKind.INVOKE_END)

    def _act_in_call(self, tag: Tag) -> None:
        if tag.kind in (TagKind.THINK_START, TagKind.THINK_END):
            return
        is_closed = tag.kind is TagKind.INVOKE_END and not self._call.in_value
        self._emit_arguments(self._call.act(tag))
        if tag.kind in (TagKind.PARAMETER_START, TagKind.PARAMETER_END):
            return
        # With closing tags left out it is whole only if nothing else is missing.
        self._end_call(is_complete=is_closed or self._call.may_end_here)
        if tag.kind is TagKind.INVOKE_START:
            self._start_call(tag)
        elif tag.kind is TagKind.CALLS_END:
            self._leave_wrapper()

    def _enter(self, state: _State, *, newlines: int = 0) -> None:
        self._state = state
        self._quoted_thinks = 0
        self._blanks.expect(newlines=newlines)

    def _start_call(self, tag: Tag) -> None:
        self._enter(_State.CALL)
        self._call = self._open_call(tag.name.strip())
        self._drops_call = self._num_tool_calls > 0 and not self._allows_several
        if not self._drops_call:
            self._events.append(ToolCallStart(self._num_tool_calls, tag.name.strip()))
            self._num_tool_calls += 1

    def _open_call(self, name: str) -> OpenCall:
        parameters = self._parameters_of_tool.get(name)
        by_tokens = self._in_wrapper and self._by_tokens
        return OpenCall(parameters, offers=self._offers, by_tokens=by_tokens)

    def _end_call(self, *, is_complete: bool, is_cut: bool = False) -> None:
        fragment, is_complete, beside = self._call.end(is_complete=is_complete, is_cut=is_cut)
        self.num_doubtful_values += self._call.num_doubtful_values
        self._emit_arguments(fragment)
        if not self._drops_call:
            self._events.append(ToolCallEnd(self._num_tool_calls - 1, is_complete))
        self._after_call(_State.CALLS if self._in_wrapper else _State.CONTENT)
        if not self._drops_call:
            self._emit_content(beside)

    def _leave_wrapper(self) -> None:
        self._in_wrapper = False
        self._after_call(_State.CONTENT)

    def _after_call(self, state: _State) -> None:
        self._enter(state)
        self._blanks.expect(any_number=True)
        self._is_fresh = self._follows_call = True

    def _emit_reasoning(self, text: str) -> None:
        if text:
            self._events.append(ReasoningDelta(text))

    def _emit_content(self, text: str) -> None:
        if text:
            self._events.append(ContentDelta(text))
            self._is_fresh = self._is_fresh and text.isspace()
            self._may_spell = self._may_spell and self._is_fresh

    def _emit_arguments(self, fragment: str) -> None:
        if fragment and not self._drops_call:
            self._events.append(ToolCallArguments(self._num_tool_calls - 1, fragment))
