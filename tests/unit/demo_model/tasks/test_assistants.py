"""What `expertmesh dev` and `data` ask is what is trained on, in the same words."""

import json
import random
import re
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.programs import pytest_text
from demo_model.tasks import analyses, data, debugging, repair, review, tables, write_tests
from demo_model.tasks.story import Story
from demo_model.toolboxes.agent_results import exited
from expertmesh.agent.tools.schema import problems
from expertmesh.agent.web.marking import marked
from expertmesh.assistants.data import judging, workbench
from expertmesh.assistants.data.analyse import first_question
from expertmesh.assistants.data.workbench import Ran
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.reviewing.passages import Passage, Row
from expertmesh.assistants.reviewing.review import SCHEMA, Reviewer
from expertmesh.assistants.tables.describe import describe
from expertmesh.assistants.tables.profile import profile_file
from expertmesh.assistants.tables.reading import reading
from expertmesh.assistants.testing.tests_text import fault_of
from expertmesh.assistants.testing.write_tests import TestWriter
from expertmesh.commands.dev import debug as dev_debug

ROW = re.compile(r"^([ \d]{6}) ?([-+ ]?)\t(.*)$", re.M)


def made(count: int) -> list[Conversation]:
    rng = random.Random(8)
    return [review.make(Draw(rng=rng, language=("en", "zh")[i % 2])) for i in range(count)]


def shown_rows(text: str) -> tuple[Row, ...]:
    return tuple(
        Row(int(number) if number.strip() else None, line, mark)
        for number, mark, line in ROW.findall(text)
    )


def test_files_and_changes_are_asked_about_in_the_assistants_own_words() -> None:
    seen = {True: 0, False: 0}
    for one in made(150):
        *asked, _ = one.messages
        if asked[0]["content"] != prompt("review", one.language):
            continue
        rows = shown_rows(asked[1]["content"])
        name = re.search(r"([a-z0-9]+\.py)", asked[1]["content"])
        assert name
        reviewer = Reviewer(MagicMock(), watching=MagicMock(), language=one.language)
        passage = Passage(name[1], rows)
        wanted = reviewer._messages(passage)
        seen[passage.is_diff] += 1
        if asked[1]["content"].count(" ") == wanted[1]["content"].count(" "):  # no focus
            assert asked == wanted
    assert min(seen.values()) > 20


def test_answers_fit_the_assistants_schema_and_name_lines_that_can_be_reported() -> None:
    for one in made(150):
        value = json.loads(chat.plain(one.messages[-1]["content"]))
        assert not problems(value, SCHEMA)
        text = one.messages[-2]["content"]
        if one.messages[0]["content"] == prompt("review", one.language):
            reportable = Passage("x.py", shown_rows(text)).reportable
            assert {finding["line"] for finding in value} <= set(reportable)


def test_held_out_wordings_are_all_that_is_asked_in_their_split() -> None:
    rng = random.Random(9)
    for _ in range(40):
        one = review.make(Draw(rng=rng, language="en", split=Split.PHRASINGS))
        assert one.messages[0]["content"] != prompt("review", "en")


def test_tests_are_asked_for_in_the_assistants_own_words() -> None:
    rng = random.Random(10)
    seen = corrected = 0
    for number in range(150):
        draw = Draw(rng=rng, language=("en", "zh")[number % 2])
        one = write_tests.make(draw)
        if one.messages[0]["content"] != prompt("tests", one.language):
            continue
        facts = one.facts
        functions = (facts["names"]["f"], None)
        writers = [
            TestWriter(
                MagicMock(),
                MagicMock(),
                MagicMock(imports="", file=f"{facts['module']}.py"),
                facts["source"],
                file="t.py",
                function=function,
                language=one.language,
                watching=MagicMock(),
            )
            for function in functions
        ]
        for writer in writers:
            writer._module.name = facts["module"]
        assert one.messages[:2] in [writer._messages() for writer in writers]
        code = write_tests.code_of(one.messages[-1]["content"])
        assert code
        assert fault_of(code) == ""
        seen += 1
        if len(one.messages) > 3:
            told = prompt("tests_fail", one.language, output="|").split("|")
            assert one.messages[3]["content"].startswith(told[0])
            assert one.messages[3]["content"].endswith(told[1])
            corrected += 1
    assert seen > 50
    assert corrected > 5


def test_failing_commands_are_told_as_dev_debug_tells_them(tmp_path: Path) -> None:
    for seed in range(12):
        draw = Draw(rng=random.Random(seed), language="en")
        story = Story(draw, "repair", ("run",), agent_share=1.0)
        folder = tmp_path / str(seed)
        folder.mkdir()
        story.folder = str(folder)
        made = repair.draw_project(draw)
        files = {made.file: made.source, made.test_file: made.test_source}
        for name, text in files.items():
            (folder / name).write_text(text)
        outcome = pytest_text.run(made, draw.rng, story.folder)
        ended = exited(outcome.text, "", outcome.exit_code)
        debugging.ask(story, "pytest -q", ended, files)
        check = debugging.checked("pytest -q", ended)
        place = MagicMock(work_dir=folder)
        hints = (None, *(hint for hint, _ in debugging.HINTS))
        told = [dev_debug._task(place, check, hint)[1] for hint in hints]
        assert story.messages[-1]["content"] in told


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_script_is_asked_for_as_data_analyse_asks(language: str, tmp_path: Path) -> None:
    for seed in range(12):
        draw = Draw(rng=random.Random(seed), language=language)
        table = tables.draw_table(draw)
        found = analyses.question(draw, "The goal?", table)
        file = tmp_path / table.file
        file.write_text(table.text)
        profile = profile_file(file)
        (libraries,) = re.findall(
            r"(?:It finds: |可用的有：)(.*?)(?:\. Nothing|。不能)", str(found)
        )
        wanted = first_question(
            "The goal?",
            language,
            described=marked(describe(profile, language), f"the file {table.file}"),
            read_by=reading(profile.facts, table.file, True),
            installed=dict(one.split(" ") for one in libraries.split(", ")),
        )
        assert found == wanted
        assert analyses.script("mean", table).startswith(reading(profile.facts, table.file, True))
    assert workbench.LIMITS == analyses.LIMITS


def test_a_script_that_printed_nothing_is_told_so_in_the_assistants_words() -> None:
    fault = judging.fault_of(Ran(exited("", "", 0), (), 0), "x = 1")
    assert fault is not None
    assert fault.what == analyses.NOTHING
    failed = judging.fault_of(Ran(exited("", "NameError: x", 1), (), 0), "x")
    assert failed is not None
    assert failed.what == "exit code 1"


def test_wrong_scripts_fail_as_they_are_said_to() -> None:
    for seed in range(30):
        draw = Draw(rng=random.Random(seed), language="en")
        table = tables.draw_table(draw)
        code = analyses.script(draw.rng.choice(tuple(tables.SAID)), table)
        for kind, error in (("name", "NameError: name 'pd' is not"), ("syntax", "SyntaxError")):
            wrong, fault, result, _ = analyses._failed(draw, kind, code)
            assert wrong != code
            assert fault == "exit code 1"
            assert error in result
        wrong, *_ = analyses._failed(draw, "nothing", code)
        assert "print" not in wrong


@pytest.mark.slow
@pytest.mark.parametrize("tag", tables.SAID)
def test_scripts_print_what_is_said_of_them(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    for seed in range(4):
        table = tables.draw_table(Draw(rng=random.Random(f"{tag}-{seed}"), language="en"))
        Path(table.file).write_text(table.text)
        for source, wanted in (
            (analyses.script(tag, table), analyses.printed(tag, table)),
            (data.script(tag, table), f"{tables.printed(tag, table)}\n"),
        ):
            exec(compile(source, "script.py", "exec"), {"__name__": "__main__"})
            assert capsys.readouterr().out == wanted
