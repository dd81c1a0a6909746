"""`DevelopmentAssistant` as programs use it: a base URL or an `LLM`, results that print well."""

import json
from collections.abc import Callable

import pytest

from expertmesh import DevelopmentAssistant
from expertmesh.assistants import development
from expertmesh.assistants.testing.workshop import Workshop
from expertmesh.clients.chat_stream import LostError
from tests.support.expertmesh import quick_pytest
from tests.support.expertmesh.fake_openai_server import FakeServer, Script
from tests.support.expertmesh.plain_sandbox import PlainSandbox
from tests.support.expertmesh.scripted_text import ToyLlm, says, texts

CODE = "def last(xs):\n    return xs[len(xs)]\n"
FOUND = json.dumps(
    [{"line": 2, "kind": "off_by_one", "severity": "error", "message": "one too far"}]
)
TESTS = "from code_under_test import last\n\n\ndef test_last():\n    assert last([1, 2, 3]) == 3\n"
Serve = Callable[[Script], FakeServer]


def test_code_is_reviewed(serve: Serve) -> None:
    assistant = DevelopmentAssistant(serve(says(FOUND)).url)
    review = assistant.code_review(CODE, "python")
    assert [one.line for one in review.findings] == [2]
    assert str(review) == (
        "code.py:2: error: off_by_one: one too far\n    return xs[len(xs)]\n"
        "1 error in 2 lines of 1 file"
    )


def test_an_llm_reviews_in_the_language_that_it_is_asked_in() -> None:
    llm = ToyLlm("x</think>[]", content="[]")
    assert DevelopmentAssistant(llm).code_review(CODE, "Rust", "找出并发问题").findings == []
    assert "你审查代码" in texts(llm.messages)
    assert "code.rs:" in texts(llm.messages)
    assert llm.params.structured_outputs is not None


async def test_it_works_where_a_loop_runs_already(serve: Serve) -> None:
    assert DevelopmentAssistant(serve(says("[]")).url).code_review(CODE).findings == []


def test_test_cases_are_run(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Workshop:
        made = Workshop(make_sandbox=PlainSandbox)
        quick_pytest.put_into(made.path)
        return made

    monkeypatch.setattr(development, "Workshop", make)
    assistant = DevelopmentAssistant(serve(says(f"```python\n{TESTS}```")).url)
    tests = assistant.generate_test_cases(CODE.replace("len(xs)", "-1"), most_mutants=2)
    assert (tests.holds, str(tests)) == (True, TESTS)
    assert len(tests.noticed) == 2
    with pytest.raises(SyntaxError):
        assistant.generate_test_cases("def f(:")
    with pytest.raises(ValueError, match="there is no first; there are last"):
        assistant.generate_test_cases(CODE, "first")


def test_an_error_is_explained(serve: Serve) -> None:
    server = serve(says("Cause: the list is empty.", thinking="hm"))
    assistant = DevelopmentAssistant(server.url, sampling={"temperature": 0})
    assert assistant.debug_assistance("IndexError", CODE) == "Cause: the list is empty."
    told = texts(server.bodies[0]["messages"])
    assert "IndexError" in told
    assert "     2\t    return xs[len(xs)]" in told
    assert server.bodies[0]["temperature"] == 0


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(LostError, match="cannot reach"):
        DevelopmentAssistant("http://127.0.0.1:9").debug_assistance("IndexError")
