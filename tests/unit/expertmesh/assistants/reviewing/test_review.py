"""A review: findings at lines that exist, pieces, what does not fit, and how it is told."""

import json

import pytest

from expertmesh.assistants.asking.model import Answer
from expertmesh.assistants.asking.structured import UselessAnswerError
from expertmesh.assistants.reviewing.findings import Finding, Review, Severity
from expertmesh.assistants.reviewing.passages import of_diff, of_text
from expertmesh.assistants.reviewing.review import Reviewer, language_of_code
from expertmesh.assistants.watch import Watching
from expertmesh.clients.chat import Reply
from expertmesh.clients.chat_stream import RefusedError
from tests.support.expertmesh.scripted_text import ScriptedText, texts

CODE = "def last(xs):\n    return xs[len(xs)]\n"


def finding(line: int, severity: str = "error", kind: str = "off_by_one") -> dict[str, object]:
    return {"line": line, "kind": kind, "severity": severity, "message": "one too far"}


def answer(*found: dict[str, object]) -> str:
    return json.dumps(found)


def reviewer(model: ScriptedText, focus: str | None = None, language: str = "en") -> Reviewer:
    return Reviewer(model, watching=Watching(), language=language, focus=focus)


async def test_findings_at_lines_that_do_not_exist_are_left_out_and_counted() -> None:
    model = ScriptedText(answer(finding(2), finding(3), finding(2), finding(2, "note", "name")))
    found = await reviewer(model).review([of_text(CODE, "a.py")])
    assert [(one.line, one.kind, one.code) for one in found.findings] == [
        (2, "off_by_one", "    return xs[len(xs)]"),
        (2, "name", "    return xs[len(xs)]"),
    ]
    assert found.dropped == 1
    assert (found.files, found.lines) == (["a.py"], 2)
    assert list(found.notes()) == [
        "1 finding names a line that the code shown does not have, and was left out"
    ]
    assert "     2\t    return xs[len(xs)]" in texts(model.asked[0])


async def test_in_a_change_only_added_lines_count() -> None:
    diff = "--- a/a.js\n+++ b/a.js\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n"
    model = ScriptedText(answer(finding(1), finding(2), finding(3)))
    found = await reviewer(model).review(of_diff(diff))
    assert [one.line for one in found.findings] == [2]
    assert found.dropped == 2
    assert "Report only lines marked +" in texts(model.asked[0])


async def test_a_long_file_is_reviewed_in_pieces_with_its_own_numbers() -> None:
    code = "".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(40))
    model = ScriptedText(*[answer(finding(2), finding(158))] * 10)
    model.max_model_len = 500
    found = await reviewer(model).review([of_text(code, "a.py")])
    assert [one.line for one in found.findings] == [2, 158]
    assert found.lines == 160
    assert len(model.asked) > 3
    assert all(len(one[1]["content"]) < 600 for one in model.asked)


async def test_what_is_too_long_for_the_server_is_halved() -> None:
    class Short(ScriptedText):
        async def ask(self, messages, **others):  # type: ignore[no-untyped-def]
            if len(messages[1]["content"]) > 400:
                raise RefusedError("http://x", 400, "the prompt exceeds the context length")
            return await super().ask(messages, **others)

    model = Short(answer(finding(1), finding(60)), answer(), answer(), answer(finding(60)))
    code = "".join(f"x{n} = {n}\n" for n in range(60))
    found = await reviewer(model).review([of_text(code, "a.py")])
    assert found.lines == 60
    assert [one.line for one in found.findings] == [1, 60]
    assert found.dropped == 1, "line 60 is not in the first quarter"


async def test_a_review_that_is_cut_off_is_asked_for_in_halves() -> None:
    cut = Answer("[", True, Reply(completion_tokens=10))
    model = ScriptedText(cut, answer(finding(1)), answer(finding(60)))
    code = "x = 1\n" * 60
    found = await reviewer(model).review([of_text(code, "a.py")])
    assert [one.line for one in found.findings] == [1, 60]


async def test_a_piece_without_a_usable_answer_is_named_and_the_others_count() -> None:
    model = ScriptedText("?", "??", answer(finding(1)))
    files = [of_text("a = 1\n", "a.py"), of_text("b = 1\n", "b.py")]
    found = await reviewer(model).review(files)
    assert [one.file for one in found.findings] == ["b.py"]
    assert found.failures[0].startswith("a.py:1-1: the model's answer is not of the form")
    with pytest.raises(UselessAnswerError, match="not of the form"):
        await reviewer(ScriptedText("?", "??")).review(files[:1])


async def test_it_asks_in_the_language_of_the_comments_and_for_what_the_user_wants() -> None:
    model = ScriptedText("[]")
    await reviewer(model, "线程安全吗？", "zh").review([of_text(CODE, "a.py")])
    assert "你审查代码" in texts(model.asked[0])
    assert "线程安全吗？" in texts(model.asked[0])
    assert language_of_code(["x = 1  # 计算总和", "def long_name(first, second):"]) == "zh"
    assert language_of_code(["x = 1  # the sum of 两 numbers"]) == "en"


def test_the_worst_finding_decides() -> None:
    review = Review([Finding("a.py", 1, "k", Severity.WARNING, "m")])
    assert [review.reaches(one) for one in Severity] == [False, True, True]
    assert not Review().reaches(Severity.NOTE)


def test_a_finding_is_told_to_people_and_to_github() -> None:
    one = Finding("a,b.py", 3, "off: by one", Severity.NOTE, "100%\nwrong", "    x = 1")
    assert one.text() == "a,b.py:3: note: off: by one: 100%\nwrong\n    x = 1"
    assert one.annotation() == ("::notice file=a%2Cb.py,line=3,title=off%3A by one::100%25%0Awrong")
