"""What does the open invoke contain: values of parameters, and text beside them?"""

from collections.abc import Callable
from typing import Any

from moe_model.families.minimax_m2.call_arguments import CallArguments
from moe_model.families.minimax_m2.tags import MARKER_KINDS, Tag, TagKind
from moe_model.families.minimax_m2.value_end import LostEnd, Surroundings, ends_value, resembles_end

INVOKE_TAGS = (
    TagKind.PARAMETER_START,
    TagKind.PARAMETER_END,
    TagKind.INVOKE_START,
    TagKind.INVOKE_END,
    TagKind.CALLS_END,
)
"""Tags that mean something between the parameters."""


class OpenCall:
    """Reads one invoke. What its methods return is more of the call's arguments, as JSON."""

    def __init__(self, parameters: Any, *, offers: Callable[[str], bool], by_tokens: bool):
        """Start after the invoke's opening tag.

        Args:
            parameters: the tool's schema, None for a tool that is not on offer.
            offers: whether a tool of this name is on offer.
            by_tokens: the wrapper was opened by its token.
        """
        self._arguments = CallArguments(parameters)
        self._around = Surroundings(call=self._arguments, offers=offers, by_tokens=by_tokens)
        self._lost_end: LostEnd | None = None
        self._quoted: set[str] = set()  # parameters whose opening tag the value only mentions
        self._beside: list[str] = []
        self.in_value = False
        self.num_doubtful_values = 0

    @property
    def may_end_here(self) -> bool:
        """No value is open, and every parameter that the tool requires was given."""
        return not self.in_value and self._arguments.is_whole

    def counts(
        self, tag: Tag, buffer: str, at: int, *, starts_line: bool, is_end: bool
    ) -> bool | None:
        """Whether the tag at `buffer[at]` is more than text; None if it is too early to tell."""
        if not self.in_value:
            is_meant = tag.is_token or not (self._around.by_tokens and tag.kind in MARKER_KINDS)
            return is_meant and tag.kind in (*INVOKE_TAGS, *MARKER_KINDS)
        if tag.kind is TagKind.PARAMETER_START:
            return starts_line and self._opens_parameter(tag, buffer, at, is_end)
        ends = ends_value(tag, buffer, self._around, is_end=is_end)
        if ends is False and tag.kind is TagKind.PARAMETER_END:
            self.num_doubtful_values += resembles_end(tag, buffer, self._around, is_end=is_end)
        return ends

    def text(self, text: str) -> str:
        """Take text that is no tag."""
        if self.in_value:
            return self._arguments.write(text)
        self._beside.append(text)
        return ""

    def act(self, tag: Tag) -> str:
        """Take a tag that counts; one that ends the call closes the value."""
        fragment = ""
        if self.in_value:
            fragment = self._arguments.close()
            self._quoted.clear()
            self.in_value = False
        elif tag.kind is TagKind.PARAMETER_END:  # the value may have ended earlier
            self.num_doubtful_values += 1
        if tag.kind is TagKind.PARAMETER_START:
            self.in_value = True
            fragment += self._arguments.open(self._arguments.name_of(tag.name))
        return fragment

    def end(self, *, is_complete: bool, is_cut: bool) -> tuple[str, bool, str]:
        """The rest of the arguments, whether they are whole, and text beside the parameters."""
        beside = "".join(self._beside).strip()
        if beside and not self._arguments.is_empty:
            self.num_doubtful_values += 1
        instead = self._arguments.finish_with(beside, is_complete=is_complete, is_cut=is_cut)
        if instead is not None:
            return *instead, ""
        if not is_complete:
            return self._arguments.leave_open(), False, beside
        return self._arguments.finish(), True, beside

    def _opens_parameter(self, tag: Tag, buffer: str, at: int, is_end: bool) -> bool | None:
        """Whether a closing tag was forgotten before this opening one."""
        name = self._arguments.name_of(tag.name)
        if name in self._quoted or not self._arguments.awaits(name):
            return False
        self._lost_end = self._lost_end or LostEnd(tag, at, name)
        opens = self._lost_end.decide(buffer, at, self._around, is_end=is_end)
        if opens is not None:
            self._lost_end = None
            self.num_doubtful_values += opens
        if opens is False:
            self._quoted.add(name)
        return opens
