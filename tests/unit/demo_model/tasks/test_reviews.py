"""Reviews and tests are asked for as `expertmesh dev` asks, and answered about what is asked."""

import json
import random
import re
from unittest.mock import MagicMock

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.tasks import review, write_tests
from expertmesh.agent.tools.schema import problems
from expertmesh.assistants.passages import Passage, Row
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.review import SCHEMA, Reviewer
from expertmesh.assistants.tests_text import fault_of
from expertmesh.assistants.write_tests import TestWriter

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
