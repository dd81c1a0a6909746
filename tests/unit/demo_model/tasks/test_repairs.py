"""Trajectories of repairs: played again in a real folder, they end with passing tests."""

import random
from typing import Any

import pytest

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.programs.project import RedrawError
from demo_model.tasks import recovery, repair
from demo_model.tasks.families import FAMILIES

SPLITS = (Split.TRAIN, Split.OPERANDS, Split.TEMPLATES)


def calls_of(made: Conversation) -> list[tuple[str, dict[str, Any], str]]:
    """(name, arguments, result) of every call."""
    found = []
    waiting: dict[str, Any] | None = None
    for message in made.messages:
        if message.get("tool_calls"):
            (call,) = message["tool_calls"]
            waiting = call["function"]
        elif message["role"] == "tool":
            assert waiting is not None
            found.append((waiting["name"], waiting["arguments"], message["content"]))
            waiting = None
    return found


def edits_of(made: Conversation) -> list[tuple[str, str, str]]:
    """(old, new, result) of each edit, under whatever names the tool has."""
    found = []
    for _, arguments, result in calls_of(made):
        values = [v for k, v in arguments.items() if k not in ("action",)]
        if len(values) == 3:
            found.append((values[1], values[2], result))
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_edits_lead_from_the_wrong_module_to_one_that_passes(split: Split) -> None:
    for seed in range(25):
        draw = Draw(rng=random.Random(seed), language=("en", "zh")[seed % 2], split=split)
        states: list[Any] = []
        original = repair.finish

        def keep(
            story: Any, project: Any, mended: Any, to: Any = states, do: Any = original
        ) -> None:
            to.append(project)
            do(story, project, mended)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(repair, "finish", keep)
            made = repair.make(draw)
        final = states[-1]
        assert final.source == final.right
        assert not final.bugs
        edits = edits_of(made)
        assert len(edits) == 1
        old, new, _ = edits[0]
        assert final.right.count(new) >= 1
        assert old != new


@pytest.mark.parametrize("kind", recovery.KINDS)
def test_every_kind_of_mishap_is_survived(kind: str) -> None:
    made_some = 0
    for seed in range(12):
        draw = Draw(rng=random.Random(f"{kind}-{seed}"), language=("en", "zh")[seed % 2])
        try:
            made = recovery._make(draw, kind)
        except RedrawError:
            continue
        made_some += 1
        last = made.messages[-1]
        assert last["role"] == "assistant"
        assert not last.get("tool_calls")
        if kind == "refused":
            assert "passe" not in last["content"]
        else:
            result = [m["content"] for m in made.messages if m["role"] == "tool"][-1]
            assert " passed in " in result
            assert " failed" not in result
    assert made_some > 3


def test_mistakes_are_read_and_not_learnt() -> None:
    rng = random.Random(5)
    seen = 0
    for _ in range(60):
        made = recovery._make(Draw(rng=rng, language="en"), "no_match")
        given = [m for m in made.messages if m.get("given") and m.get("tool_calls")]
        written = "".join(text for text, is_model in chat.render(made) if is_model)
        for message in given:
            (call,) = message["tool_calls"]
            values = list(call["function"]["arguments"].values())
            if len(values) < 3 or not message["reasoning_content"]:
                continue
            old = values[-2]
            seen += 1
            assert f">{old}</parameter>" not in written
    assert seen > 30


@pytest.mark.parametrize("family", ["repair", "recovery"])
def test_the_same_seed_gives_the_same_conversation(family: str) -> None:
    one, other = (FAMILIES[family](Draw(rng=random.Random(3), language="zh")) for _ in range(2))
    assert one == other
