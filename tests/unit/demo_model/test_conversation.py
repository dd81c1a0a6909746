"""Whole conversations: tools, history, and the rendering that must equal the chat template's."""

import json
import random
from typing import Any

import pytest

from demo_model import chat, tools
from demo_model import conversation as conversations
from demo_model.conversation import make
from demo_model.draw import Draw, Split
from moe_model.chat.template import ChatTemplate
from tests.support.moe_model.chat.rendering import render_text
from tests.support.places import DEMO_MODEL


def conversation(
    skill: str | None = None, seed: int = 0, language: str = "en"
) -> chat.Conversation:
    return make(Draw(rng=random.Random(seed), language=language), skill)


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate.load(DEMO_MODEL)


def test_rendering_equals_the_chat_template(template: ChatTemplate) -> None:
    for seed in range(150):
        made = conversation(seed=seed, language=("en", "zh")[seed % 2])
        messages = [
            {
                key: chat.plain(value) if isinstance(value, str) else value
                for key, value in m.items()
            }
            for m in made.messages
        ]
        text = render_text(template, messages, made.tools or None, add_generation_prompt=False)
        assert chat.plain("".join(part for part, _ in chat.render(made))) + "\n" == text


def test_the_prompt_of_an_evaluation_is_the_template_s_generation_prompt(
    template: ChatTemplate,
) -> None:
    made = conversation("tool_answer", seed=3)
    segments = chat.render(made)
    prompt = "".join(text for text, _ in segments[:-1])
    assert prompt == render_text(template, made.messages[:-1], made.tools)


def test_only_what_the_model_writes_after_the_last_user_message_is_marked() -> None:
    made = conversation("tool_answer", seed=1)
    written = [text for text, is_model in chat.render(made) if is_model]
    assert len(written) == 2
    assert chat.TOOL_CALL in written[0]
    assert written[1].endswith(chat.END_OF_TURN)
    assert all(chat.END_OF_THINK in text for text in written)


def test_python_executor_is_among_zero_to_eight_others() -> None:
    counts = set()
    for seed in range(300):
        made = conversation("tool_call", seed=seed)
        names = [tool["function"]["name"] for tool in made.tools]
        assert names.count("python_executor") == 1
        assert len(set(names)) == len(names)
        counts.add(len(names) - 1)
    assert counts == set(range(9))


def test_a_tool_call_is_due_beyond_the_head_or_when_asked_for_and_runs_the_right_code() -> None:
    for seed in range(200):
        made = conversation("tool_call", seed=seed)
        call = made.messages[-1]["tool_calls"][0]["function"]
        assert call["name"] == "python_executor"
        code = call["arguments"]["code"]
        a, operator, b = code.removeprefix("print(").removesuffix(")").split(" ")
        assert operator in "+-*"
        question = made.messages[-2]["content"]
        asked_for = any(wish in question for wish in conversations.WISHES_EN)
        assert asked_for or max(len(a), len(b)) > 2
    for skill in ("add", "greeting", "sort"):
        assert all("tool_calls" not in m for m in conversation(skill, seed=5).messages)


def test_the_answer_after_a_tool_states_what_the_tool_said() -> None:
    for seed in range(60):
        made = make(
            Draw(rng=random.Random(seed), language="zh", split=Split.OPERANDS), "tool_answer"
        )
        *_, result, answer = made.messages
        assert answer["content"].split(" = ")[1] in result["content"]


def test_too_large_is_declined_only_without_python_executor() -> None:
    for seed in range(100):
        made = conversation("too_large", seed=seed)
        assert all(tool["function"]["name"] != "python_executor" for tool in made.tools)


def test_tool_descriptions_are_valid_for_an_openai_endpoint() -> None:
    rng = random.Random(0)
    for tool in [*tools.irrelevant(rng, 38), tools.python_executor(rng)]:
        function: dict[str, Any] = tool["function"]
        assert function["name"].replace("_", "").isascii()
        assert set(function["parameters"].get("required", [])) <= set(
            function["parameters"]["properties"]
        )
        json.dumps(tool)


def test_the_same_seed_gives_the_same_conversation() -> None:
    assert conversation(seed=7) == conversation(seed=7)
    assert conversation(seed=7) != conversation(seed=8)
