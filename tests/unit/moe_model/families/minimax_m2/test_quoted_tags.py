"""Tags that the model only quotes stay text, in the answer and in the thinking."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_model.chat.events import ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallStart
from moe_model.families.minimax_m2.parser import OutputParser
from tests.support.examples import examples
from tests.support.moe_model.chat.spelled_output import QUOTED, events_of, quoted, units_of

PARAMETERS = {"type": "object", "properties": {"code": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "run", "parameters": PARAMETERS}}]
CALL_RUN_1 = """
<minimax:tool_call>
<invoke name="run">
<parameter name="code">1</parameter>
</invoke>
</minimax:tool_call>"""


def summary(text: str, **options: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    """Reasoning, content, and calls with their arguments."""
    reasoning, content, calls = "", "", []
    for event in events_of(OutputParser(tools=TOOLS), text, **options):
        if isinstance(event, ReasoningDelta):
            reasoning += event.text
        elif isinstance(event, ContentDelta):
            content += event.text
        elif isinstance(event, ToolCallStart):
            calls.append([event.name, ""])
        elif isinstance(event, ToolCallArguments):
            calls[event.index][1] += event.fragment
    return reasoning, content, [(name, json.loads(arguments)) for name, arguments in calls]


soups = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<minimax:tool_call>", "</minimax:tool_call>", "\n", "text", "<"]
    )
    | st.text(max_size=3),
    max_size=12,
).map("".join)


THINK_REGEX = 'Use `re.sub(r"<think>.*?</think>", "", s)` to drop it.'
EXAMPLE = "Like this:\n```\n" + CALL_RUN_1.strip() + "\n```\nDo not run it."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t</think>" + quoted(THINK_REGEX), ("t", THINK_REGEX, [])),
        ("t</think>" + THINK_REGEX, ("t", THINK_REGEX, [])),
        (
            quoted("what </think> means. It closes.") + "\n</think>\n\na",
            ("what </think> means. It closes.", "a", []),
        ),
        ("t</think>" + quoted(EXAMPLE), ("t", EXAMPLE, [])),
        (
            quoted("a <minimax:tool_call> opens, </minimax:tool_call> closes") + "</think>b",
            ("a <minimax:tool_call> opens, </minimax:tool_call> closes", "b", []),
        ),
        (
            'a</think>The tag `<invoke name="run">` opens a call; `</invoke>` closes it.',
            ("a", 'The tag `<invoke name="run">` opens a call; `</invoke>` closes it.', []),
        ),
        (
            'a</think><invoke name="run"> opens a call; </invoke> closes it.',
            ("a", '<invoke name="run"> opens a call; </invoke> closes it.', []),
        ),
        ("a</think>" + quoted("</think> closes"), ("a", "</think> closes", [])),
        ("a</think>" + quoted("<minimax:tool_call> opens"), ("a", "<minimax:tool_call> opens", [])),
        ("a</think></invoke> closes", ("a", "</invoke> closes", [])),
        (
            quoted("<think>\n") + "t</think>" + quoted("x<think>y</think>z"),
            ("<think>\nt", "x<think>y</think>z", []),
        ),
    ],
)
def test_quoted_tags_stay_text(text: str, expected: Any) -> None:
    assert summary(text) == expected
    assert summary(text, cuts=range(len(text))) == expected


@examples(300)
@given(thought=soups, soup=st.text(max_size=5))
def test_thinking_ends_by_its_token_alone(thought: str, soup: str) -> None:
    written = quoted(thought.replace(QUOTED, "")).strip("\n")
    reasoning, _, _ = summary(written + "\n</think>\n\n" + soup)
    assert reasoning.startswith("".join(unit for unit, _ in units_of(written)).strip("\n"))


CALL = '<invoke name="run">\n<parameter name="code">1</parameter>\n</invoke>\n'
RUN = ("run", {"code": "1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # in a wrapper opened by its token, between and within calls
        (
            "<minimax:tool_call>\nNow the " + quoted("</minimax:tool_call>") + " tag\n" + CALL,
            ("", "Now the </minimax:tool_call> tag", [RUN]),
        ),
        ("<minimax:tool_call>\n" + quoted("</think>") + CALL, ("", "</think>", [RUN])),
        # after a call in a wrapper nothing is a call without a token
        (
            CALL_RUN_1 + "Like " + quoted(CALL_RUN_1),
            ("", "Like " + CALL_RUN_1, [RUN]),
        ),
        (CALL_RUN_1 + "\n" + CALL, ("", CALL, [RUN])),
        (CALL_RUN_1 + quoted("</minimax:tool_call>"), ("", "</minimax:tool_call>", [RUN])),
        # tokens out of their order
        (
            "<minimax:tool_call>\n<think>hm</think>" + CALL + CALL + "</minimax:tool_call>",
            ("hm", "", [RUN, RUN]),
        ),
    ],
)
def test_only_tokens_count_where_the_wrapper_was_one(text: str, expected: Any) -> None:
    assert summary("</think>" + text) == expected
    assert summary("</think>" + text, cuts=range(len(text) + 9)) == expected
