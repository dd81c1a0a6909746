"""M2's published template renders as Transformers renders it.

The template and the golden renderings are test data that does not ship with the repository:
`EXPERTMESH_M2_CHAT_DATA` names their folder.
"""

import copy
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from moe_model.chat.messages import normalise_messages
from moe_model.chat.template import ChatTemplate
from tests.support.examples import examples
from tests.support.moe_model.chat.any_values import ANYTHING, FIELDS, with_values
from tests.support.moe_model.chat.samples import MARKERS
from tests.support.places import ROOT

DATA = Path(os.environ.get("EXPERTMESH_M2_CHAT_DATA", ROOT.parent / "shared/data/m2"))

if not (DATA / "chat_golden.jsonl").is_file():
    pytest.skip(f"no published chat data in {DATA}", allow_module_level=True)

CASES = [json.loads(line) for line in (DATA / "chat_golden.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def published() -> ChatTemplate:
    source = (DATA / "chat_template.jinja").read_text(encoding="utf-8")
    return ChatTemplate(source, markers=MARKERS)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_rendering_equals_the_golden_one(published: ChatTemplate, case: dict[str, Any]) -> None:
    messages = copy.deepcopy(case["messages"])
    for message in messages:
        for call in message.get("tool_calls", []):  # as OpenAI's clients send them
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    segments = published.render(
        normalise_messages(messages),
        case["tools"],
        add_generation_prompt=case["add_generation_prompt"],
    )
    assert "".join(segment.text for segment in segments) == case["rendered"]
    for segment in segments:  # no text in these conversations looks like a marker
        assert segment.is_marker == (segment.text in MARKERS)
        assert segment.is_marker or not any(marker in segment.text for marker in MARKERS)


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(FIELDS), ANYTHING), min_size=1, max_size=3))
def test_it_renders_any_history(
    published: ChatTemplate, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    turns = normalise_messages(with_values(changes))
    segments = published.render(turns, None)
    starts = sum(segment.is_marker and segment.text == "]~b]" for segment in segments)
    ends = sum(segment.is_marker and segment.text == "[e~[" for segment in segments)
    tool_runs = sum(
        turn["role"] == "tool" and before["role"] != "tool"
        for before, turn in itertools.pairwise(turns)
    )
    others = sum(turn["role"] not in ("tool", "system") for turn in turns)
    assert (starts, ends) == (1 + others + tool_runs + 1, 1 + others + tool_runs)
