"""How do the token ids of one choice become reasoning, content and tool calls?

ids -> detokenizer -> the family's output parser -> stop strings (content only). One per choice.
"""

from collections.abc import Sequence

from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallEnd,
    ToolCallStart,
)
from moe_model.families.family import ChatFormat, OutputParser
from moe_model.text.stop_strings import StopMatcher
from moe_model.text.tokenizer import Tokenizer


class StopFilter:
    """Passes content until a stop string is complete; holds back what may become one."""

    def __init__(self, stops: Sequence[str]):
        self._stops = list(stops)
        self._matcher = StopMatcher(self._stops) if self._stops else None
        self.matched: str | None = None

    @property
    def stopped(self) -> bool:
        return self.matched is not None

    def feed(self, text: str) -> str:
        if self._matcher is None:
            return text
        safe, self.matched = self._matcher.feed(text)
        return safe

    def flush(self) -> str:
        """What was held back. Content before and after another event is matched apart."""
        if self._matcher is None or self.stopped:
            return ""
        held = self._matcher.flush()
        self._matcher = StopMatcher(self._stops)
        return held


class PlainText:
    """Text and stop strings, no parser."""

    def __init__(self, tokenizer: Tokenizer, *, stops: Sequence[str]):
        self._detokenizer = tokenizer.detokenizer()
        self._filter = StopFilter(stops)
        self.reasoning_tokens = 0
        self.tool_calls = 0
        self.unfinished_tool_calls = 0

    @property
    def doubtful_values(self) -> int:
        """Values of tool parameters that may have ended elsewhere."""
        return 0

    @property
    def stopped(self) -> bool:
        """A stop string was found: nothing follows."""
        return self._filter.stopped

    @property
    def stop_string(self) -> str | None:
        """Which one."""
        return self._filter.matched

    def push(self, token_id: int) -> list[ParserEvent]:
        """Events that became certain with this token."""
        return _content(self._filter.feed(self._detokenizer.push(token_id)))

    def finish(self, *, is_cut: bool = False) -> list[ParserEvent]:
        """What was held back; call once, after the last token. `is_cut`: a limit ended it."""
        if self.stopped:
            return []
        text = self._filter.feed(self._detokenizer.finish())
        return _content(text + self._filter.flush())


class ChatText(PlainText):
    """Chat: thinking, content and tool calls apart."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_format: ChatFormat,
        *,
        parser: OutputParser,
        stops: Sequence[str],
        reasoning_in_content: bool,
    ):
        """`reasoning_in_content`: thinking stays in the content, tagged as the template tags it."""
        super().__init__(tokenizer, stops=stops)
        self._tag_of_id = {tokenizer.marker_ids[tag]: tag for tag in chat_format.output_tags}
        self._think = chat_format.think
        self._parser = parser
        self._inline = reasoning_in_content
        self._inline_open = False

    @property
    def doubtful_values(self) -> int:
        return self._parser.num_doubtful_values

    def push(self, token_id: int) -> list[ParserEvent]:
        self.reasoning_tokens += self._parser.in_reasoning
        text = self._detokenizer.push(token_id)
        tag = self._tag_of_id.get(token_id)
        if tag is None:
            return self._filtered(self._parser.feed(text)) if text else []
        before = text.removesuffix(tag)  # half a character that the tag cut off
        events = self._parser.feed(before) if before else []
        return self._filtered([*events, *self._parser.feed_marker(tag)])

    def finish(self, *, is_cut: bool = False) -> list[ParserEvent]:
        if self.stopped:
            return []
        events = self._filtered(self._parser.feed(self._detokenizer.finish()))
        if not self.stopped:
            events += self._filtered(self._parser.finish(is_cut=is_cut))
        if not self.stopped:
            events += _content(self._filter.flush())
        return events

    def _filtered(self, parsed: Sequence[ParserEvent]) -> list[ParserEvent]:
        events: list[ParserEvent] = []
        for event in parsed:
            if isinstance(event, ReasoningDelta):
                events += self._reasoning(event)
                continue
            if self._inline_open:
                self._inline_open = False
                events.append(ContentDelta(f"\n{self._think.closing}\n\n"))
            if isinstance(event, ContentDelta):
                events += _content(self._filter.feed(event.text))
                if self.stopped:
                    break
                continue
            if isinstance(event, ToolCallStart):
                events += _content(self._filter.flush())
                self.tool_calls += 1
            elif isinstance(event, ToolCallEnd):
                self.unfinished_tool_calls += not event.complete
            events.append(event)
        return events

    def _reasoning(self, event: ReasoningDelta) -> list[ParserEvent]:
        if not self._inline:
            return [event]
        opening = "" if self._inline_open else f"{self._think.opening}\n"
        self._inline_open = True
        return [ContentDelta(opening + event.text)]


def _content(text: str) -> list[ParserEvent]:
    return [ContentDelta(text)] if text else []
