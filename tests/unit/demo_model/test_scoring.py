"""When an answer counts, and what the endpoint evaluation sends and reads."""

import json

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessage

from demo_model import evaluate, scoring
from demo_model.conversation import WEIGHTS
from demo_model.draw import Split
from demo_model.scoring import Question, Reply

CALL = (
    "big</think>\n\n\n<minimax:tool_call>\n"
    '<invoke name="python_executor">\n<parameter name="code">print(1)</parameter>\n</invoke>\n'
    "</minimax:tool_call>"
)


def asked(content: str = "", code: str | None = None) -> Question:
    return Question(
        skill="add",
        language="en",
        messages=[{"role": "user", "content": "?"}],
        tools=[],
        content=content,
        code=code,
    )


def test_a_completion_is_taken_apart_like_the_gateway_does() -> None:
    reply = scoring.read_completion("7+8=15\n</think>\n\n15")
    assert reply == Reply(content="15", code=None, called=False)
    assert scoring.read_completion(CALL) == Reply(content="", code="print(1)", called=True)
    assert scoring.read_completion("never ends").content == ""


@pytest.mark.parametrize(
    "broken",
    [
        CALL.replace("</invoke>\n", ""),
        CALL.replace("python_executor", "get_weather"),
        CALL.removesuffix("</minimax:tool_call>"),
        CALL + " and more",
    ],
)
def test_a_malformed_call_has_no_code_but_counts_as_a_call(broken: str) -> None:
    reply = scoring.read_completion(broken)
    assert (reply.code, reply.called) == (None, True)


def test_right_means_equal_content_and_no_call_or_the_right_code() -> None:
    said, called = asked(content="15"), asked(code="print(1)")
    assert scoring.is_right(said, Reply(content="15", code=None, called=False))
    assert not scoring.is_right(said, Reply(content="16", code=None, called=False))
    assert not scoring.is_right(said, Reply(content="15", code="print(1)", called=True))
    assert scoring.is_right(called, Reply(content="", code="print(1)", called=True))
    assert not scoring.is_right(called, Reply(content="", code="print(2)", called=True))


def test_questions_cover_every_skill_in_both_languages_and_repeat() -> None:
    found = scoring.questions(Split.OPERANDS, per_skill=2)
    assert {(q.skill, q.language) for q in found} == {
        (skill, language) for skill in WEIGHTS for language in ("en", "zh")
    }
    assert found == scoring.questions(Split.OPERANDS, per_skill=2)
    assert found != scoring.questions(Split.OPERANDS, per_skill=2, seed=1)


def test_the_table_has_one_line_per_skill_and_language() -> None:
    pairs = [
        (asked(content="1"), Reply(content="1", code=None, called=False)),
        (asked(content="1"), Reply(content="2", code=None, called=False)),
    ]
    lines = scoring.render_table({"greedy": scoring.tally(pairs)}).splitlines()
    assert lines[2:] == ["| add | en | 50.0 % |", "| all | both | 50.0 % |"]
    assert scoring.well_formed_calls(pairs) == [0, 0]


def test_messages_are_sent_as_an_openai_client_sends_them() -> None:
    found = [q for q in scoring.questions(Split.OPERANDS, 1) if q.skill == "tool_answer"]
    sent = evaluate.to_openai(found[0].messages)
    call = next(m for m in sent if m.get("tool_calls"))["tool_calls"][0]
    result = next(m for m in sent if m["role"] == "tool")
    assert json.loads(call["function"]["arguments"])["code"].startswith("print(")
    assert result["tool_call_id"] == call["id"]


def message(arguments: str, name: str = "python_executor") -> ChatCompletionMessage:
    function = {"name": name, "arguments": arguments}
    return ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        }
    )


def test_a_reply_with_broken_arguments_or_another_tool_has_no_code() -> None:
    assert evaluate.read_message(message('{"code": "print(1)"}')).code == "print(1)"
    assert evaluate.read_message(message("{")).code is None
    assert evaluate.read_message(message("[]")).code is None
    assert evaluate.read_message(message("{}", name="other")).code is None


async def test_evaluation_asks_everything_and_reports_mistakes() -> None:
    bodies = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/models"):
            model = {"id": "m", "object": "model", "created": 0, "owned_by": "x"}
            return httpx.Response(200, json={"object": "list", "data": [model]})
        bodies.append(json.loads(request.content))
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "You are welcome!"},
        }
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        return httpx.Response(200, json={**body, "choices": [choice]})

    run, _ = evaluate.parse(["--base-url", "http://test/v1", "--per-skill", "3"])
    questions = [q for q in scoring.questions(run.split, 3) if q.skill == "greeting"]
    transport = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    client = openai.AsyncOpenAI(base_url=run.base_url, api_key="none", http_client=transport)
    pairs = await evaluate.ask_all(run, questions, client)
    found = evaluate.report(run, pairs, 1.0)
    right = sum(q.content == "You are welcome!" for q in questions)
    assert found["asked"] == 6
    assert found["right"] == right
    assert len(found["mistakes"]) == 6 - right
    assert all(body["temperature"] == 0 and body["model"] == "m" for body in bodies)
