"""`expertmesh dev` with the demonstration model, which is too small for it: what fails, and how."""

from pathlib import Path

import pytest

from expertmesh import LLM, DevelopmentAssistant
from expertmesh.assistants.asking.structured import UselessAnswerError
from tests.support.expertmesh.up import expertmesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CODE = (
    "def last(xs):\n    return xs[len(xs)]\n\n\nif __name__ == '__main__':\n    print(last([1]))\n"
)
BRIEFLY = ("--temperature", "0", "--max-tokens", "200")


@pytest.fixture
def work(work: Path) -> Path:
    (work / "last.py").write_text(CODE)
    return work


def test_a_review_has_lines_that_exist_or_says_in_a_line_why_it_failed(
    url: str, work: Path
) -> None:
    done = expertmesh("dev", "review", str(work / "last.py"), "--base-url", url, *BRIEFLY)
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("expertmesh: the model's answer")
    for line in done.stdout.splitlines()[::2]:
        assert int(line.split(":")[1]) in range(1, 7)


def test_tests_that_it_cannot_write_are_not_saved(url: str, work: Path) -> None:
    asked = ("dev", "tests", str(work / "last.py"), "--root", str(work), "--base-url", url)
    done = expertmesh(*asked, *BRIEFLY)
    assert (done.returncode == 0) == (work / "tests").exists()
    assert "Traceback" not in done.stderr


def test_what_it_cannot_mend_stays_as_it_is(url: str, work: Path, tmp_path: Path) -> None:
    asked = ("dev", "debug", "--dir", str(work), "--approve", "edits", "--base-url", url, *BRIEFLY)
    done = expertmesh(*asked, "--", "python3", "last.py", XDG_STATE_HOME=str(tmp_path))
    assert "IndexError" in done.stderr or "exit code 1" in done.stderr
    assert done.returncode in (0, 1, 4, 5)
    assert ((work / "last.py").read_text() == CODE) == ("nothing was changed" in done.stderr)


def test_an_llm_of_this_process_is_asked_the_same() -> None:
    with LLM() as llm:
        assistant = DevelopmentAssistant(llm, sampling={"temperature": 0.0, "max_tokens": 100})
        assert assistant.debug_assistance("IndexError: list index out of range", CODE)
        try:
            assert all(one.line <= 6 for one in assistant.code_review(CODE).findings)
        except UselessAnswerError as error:
            assert "cut off after 100 tokens" in str(error)  # noqa: PT017
