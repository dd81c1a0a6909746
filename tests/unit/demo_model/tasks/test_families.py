"""What the families teach is true: results, values, citations, findings."""

import itertools
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.judging import replies, steps
from demo_model.programs import catalogue, project, running, templates
from demo_model.programs.project import Check
from demo_model.programs.templates import fill
from demo_model.tasks import compute, debug, scripts, tool_choice, write_tests
from demo_model.tasks.families import FAMILIES, OF_TEMPLATES, chances
from demo_model.toolboxes import definitions

LANGUAGES = ("en", "zh")


def some(family: str, count: int, split: Split = Split.TRAIN) -> list[Conversation]:
    rng = random.Random(f"{family}-{split.value}")
    return [
        FAMILIES[family](Draw(rng=rng, language=LANGUAGES[i % 2], split=split))
        for i in range(count)
    ]


def calls_of(message: dict) -> list[dict]:
    return [call["function"] for call in message.get("tool_calls", ())]


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_right_step_is_judged_right_and_its_call_fits_the_schema(
    family: str, split: Split
) -> None:
    if split is Split.TEMPLATES and family not in OF_TEMPLATES:
        pytest.skip("has no templates")
    for made in some(family, 12, split):
        offered = {tool["function"]["name"]: tool["function"] for tool in made.tools}
        assert len(offered) == len(made.tools)
        for step in steps.steps_of(made):
            text = chat.plain(chat.completion(step.wanted)).removesuffix(chat.END_OF_TURN)
            assert steps.is_right(step, replies.read(text))
            for function in calls_of(step.wanted):
                schema = offered[function["name"]]["parameters"]
                assert set(function["arguments"]) <= set(schema["properties"])
                assert set(schema.get("required", ())) <= set(function["arguments"])


def test_values_of_computations_are_true() -> None:
    seen = 0
    for made in some("compute", 150):
        answer = made.messages[-1]["content"]
        codes = [f["arguments"] for m in made.messages for f in calls_of(m)]
        if codes and " = " in answer:
            source, value = answer.rsplit(" = ", 1)
            assert str(eval(source, {})) == value
            assert f"print({source})" in codes[-1].values()
            seen += 1
    assert seen > 80


def test_a_result_is_recognised_in_every_shape() -> None:
    assert all("{}" in shape for shape in compute.PRINTED)
    found = {
        m["content"] for made in some("compute", 300) for m in made.messages if m["role"] == "tool"
    }
    assert any(text.startswith("exit code 0\n") for text in found)
    assert any('"stdout"' in text for text in found)


def test_scripts_crash_as_shown_and_run_once_mended() -> None:
    rng = random.Random(1)
    for number in range(40):
        draw = Draw(rng=rng, language=LANGUAGES[number % 2])
        made, run = debug.draw_script(draw, "/work")
        assert run.exit_code == 1
        assert type(run.error).__name__ in run.output
        assert "demo_model" not in run.output
        assert scripts.run(made.mended(made.bugs[0]).source, f"/work/{made.file}").error is None


def test_a_traceback_is_pythons_own(tmp_path: Path) -> None:
    rng = random.Random(2)
    for number in range(4):
        made, run = debug.draw_script(Draw(rng=rng, language="en"), str(tmp_path))
        (tmp_path / made.file).write_text(made.source)
        done = subprocess.run(
            [sys.executable, str(tmp_path / made.file)], capture_output=True, text=True, timeout=60
        )
        real, ours = (  # Python 3.11 adds its guesses only where it prints by itself
            re.sub(r"\. Did you mean: .*", "", text) for text in (done.stderr, run.output)
        )
        assert real == ours, number


def test_reviews_name_lines_that_exist_and_clean_code_has_no_findings() -> None:
    clean = 0
    for made in some("review", 80):
        found = json.loads(made.messages[-1]["content"])
        clean += not found
        for one in found:
            assert set(one) == {"line", "kind", "severity", "message"}
        assert [(one["line"], one["kind"]) for one in found] == made.facts["lines"]
    assert 10 < clean < 40


def test_citations_point_at_the_page_with_the_fact() -> None:
    cited = 0
    for made in some("research", 80):
        answer = made.messages[-1]["content"]
        number = re.search(r"\[(\d+)\]", answer)
        page = next((m["content"] for m in reversed(made.messages) if m["role"] == "tool"), "")
        if not number or "did not find" in answer or "没有查到" in answer:
            continue
        cited += 1
        sentence = re.sub(r" ?\[\d+\]", "", answer)
        assert sentence in page
        if "] https://" in page:
            assert f"[{number[1]}] https://" in page
    assert cited > 50


def test_choices_can_be_filled_from_their_tools_parameters() -> None:
    for name, wordings in tool_choice.choices().items():
        for language in LANGUAGES:
            assert len(wordings[language]) == 4
            for wording in wordings[language]:
                slots = set(re.findall(r"\{([^}]+)\}", wording))
                assert slots
                assert slots <= set(tool_choice._parameters(name))


def test_shares_add_up() -> None:
    assert sum(chances().values()) == pytest.approx(1)
    assert set(chances()) == {*FAMILIES, ""}


def test_held_out_operands_never_meet_training() -> None:
    for family in ("read_file", "write_file", "data", "research", "compute"):
        trained, held_out = (
            {
                m["content"]
                for made in some(family, 100, split)
                for m in made.messages
                if m["role"] == "user"
            }
            for split in (Split.TRAIN, Split.OPERANDS)
        )
        assert not trained & held_out


def test_every_role_of_the_agent_is_a_tool_of_the_agent() -> None:
    agent = definitions.agent()
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in agent["tools"]}
    for tool, names, fixed in agent["roles"].values():
        assert {*names.values(), *fixed} <= set(tools[tool]["properties"])


def test_tests_notice_a_variant_that_differs_for_long_arguments_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (template,) = (found for found in templates.load() if found.name == "compress")
    names = catalogue.default_names(template)
    source = "\n".join(fill(line, names) for line in template.lines)
    draw_checks, rounds = project.checks_of, itertools.count()

    def counted(*arguments: Any) -> tuple[Check, ...]:
        assert next(rounds) < 100, "too many checks are drawn"
        return draw_checks(*arguments)

    monkeypatch.setattr(project, "checks_of", counted)
    for pair in catalogue.pairs():
        if pair.template is template and not pair.breaks:
            wrong = running.define(fill("\n".join(pair.lines), names), "wrong.py")[names["f"]]
            monkeypatch.setattr(write_tests, "_wrong", lambda *_, wrong=wrong: wrong)
            draw = Draw(rng=random.Random(3), language="en")
            checks = write_tests.easy_checks(draw, template, names["f"], source, 3)
            assert any(project.fails(wrong, check) for check in checks)
            assert 2 <= len(checks) <= 3


def test_checks_that_notice_nothing_are_drawn_a_bounded_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (template,) = (found for found in templates.load() if found.name == "total")
    names = catalogue.default_names(template)
    source = "\n".join(fill(line, names) for line in template.lines)
    right = running.define(source, "right.py")[names["f"]]
    monkeypatch.setattr(write_tests, "_wrong", lambda *_: right)
    with pytest.raises(project.RedrawError):
        write_tests.easy_checks(
            Draw(rng=random.Random(3), language="en"), template, names["f"], source, 3
        )
