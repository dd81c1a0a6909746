"""What the template writes for an assistant, the parser reads back."""

import json
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from moe_model.chat.events import ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallStart
from moe_model.chat.template import ChatTemplate
from moe_model.families.minimax_m2.parser import OutputParser
from tests.support.examples import examples
from tests.support.moe_model.chat.spelled_output import events_of, quoted

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "count": {"type": "integer"},
                    "ratio": {"type": "number"},
                    "flag": {"type": "boolean"},
                    "items": {"type": "array"},
                    "map": {"type": "object"},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "g"}},
]
plain = st.text(alphabet=st.sampled_from("ab \n<>/\"'\\é🙂1"), max_size=15)
inner = st.none() | st.booleans() | st.integers() | plain
arguments = st.fixed_dictionaries(
    {},
    optional={
        "text": plain,
        "count": st.integers(),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.booleans(),
        "items": st.lists(inner, max_size=3),
        "map": st.dictionaries(plain, inner, max_size=3),
    },
)
calls = st.lists(
    st.tuples(st.just("f"), arguments) | st.tuples(st.just("g"), st.just({})), max_size=3
)


@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reasoning=plain.filter(bool), content=plain, calls=calls, data=st.data())
def test_parsing_a_rendered_message_gives_it_back(
    template: ChatTemplate, reasoning: str, content: str, calls: Any, data: Any
) -> None:
    message = {
        "role": "assistant",
        "content": content,
        "reasoning_content": reasoning,
        "tool_calls": [{"function": {"name": n, "arguments": a}} for n, a in calls],
    }
    user = {"role": "user", "content": "x"}
    prompt = template.render([user], TOOLS)
    whole = template.render([user, message], TOOLS, add_generation_prompt=False)
    emitted = "".join(s.text if s.is_marker else quoted(s.text) for s in whole)
    opened = "".join(s.text if s.is_marker else quoted(s.text) for s in prompt)
    assert emitted.startswith(opened)
    output = emitted[len(opened) :].removesuffix("[e~[\n")

    cut = data.draw(st.integers(0, len(output)))
    events = events_of(OutputParser(tools=TOOLS), output, cuts=[cut])
    assert "".join(e.text for e in events if isinstance(e, ReasoningDelta)) == reasoning
    assert "".join(e.text for e in events if isinstance(e, ContentDelta)) == content
    names = [event.name for event in events if isinstance(event, ToolCallStart)]
    texts = [""] * len(names)
    for event in events:
        if isinstance(event, ToolCallArguments):
            texts[event.index] += event.fragment
    assert list(zip(names, map(json.loads, texts), strict=True)) == calls
