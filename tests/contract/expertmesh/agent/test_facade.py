"""`ToolAgent` in a program: over HTTP, and with an `LLM`."""

from pathlib import Path
from typing import Any

import pytest

import expertmesh
from expertmesh import ToolAgent
from expertmesh.agent import facade
from expertmesh.agent.loop.loop import Ending
from expertmesh.agent.tools.tool import Effect, Result, Source, Status, object_schema
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.outputs import CompletionOutput, RequestMetrics, RequestOutput
from tests.support.expertmesh.agent_scripts import Scripts
from tests.support.expertmesh.plain_sandbox import PlainSandbox
from tests.support.gateway.answers import invoke
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facade, "choose_sandbox", lambda folder, *_, **__: PlainSandbox(folder))


def test_a_question_is_answered_with_a_tool(
    gateway: Harness, scripts: Scripts, state: Path
) -> None:
    code = "print(open('made.txt', 'w').write('x'))"
    gateway.script(
        in_turn(
            scripts.calls(invoke("python_executor", code=code)),
            scripts.calls(invoke("file_editor", action="read", file_path="made.txt")),
            scripts.final("It wrote 1 [2]."),
        )
    )
    run = ToolAgent(gateway.base_url, state_dir=state).execute_with_tools("write", max_steps=10)
    assert run.succeeded
    assert (run.answer, run.steps) == ("It wrote 1 [2].", 3)
    assert run.calls == ("python_executor", "file_editor")
    assert [run.sources[number - 1].place for number in run.cited] == ["made.txt:1-1"]
    assert [one.line() for one in run.changes.files] == ["added made.txt (+1 -0)"]
    assert run.trace.exists()


def test_a_complex_task_begins_with_a_plan(
    gateway: Harness, scripts: Scripts, state: Path, work: Path
) -> None:
    steps = '[{"step": "look", "status": "done"}]'
    gateway.script(in_turn(scripts.calls(invoke("update_plan", steps=steps)), scripts.final("ok")))
    run = ToolAgent(gateway.base_url, work_dir=work, state_dir=state).execute_complex_task(
        "mend it"
    )
    assert (run.ending, run.plan) == (Ending.DONE, (("done", "look"),))
    prompt = scripts.tokenizer.decode(list(gateway.fake.requests[0].prompt_token_ids))
    assert "Write down a plan with update_plan first" in prompt
    assert "The task: mend it" in prompt


class Page:
    name = "fetch"
    description = "Reads a page."
    effect = Effect.WEB
    parameters = object_schema({"url": {"type": "string"}})

    async def call(self, arguments: dict[str, Any]) -> Result:
        return Result(Status.OK, "Oslo", (Source.of(arguments["url"], "Oslo"),))


def test_a_task_for_the_web_needs_a_tool_for_it_and_cites(
    gateway: Harness, scripts: Scripts, state: Path
) -> None:
    gateway.script(
        in_turn(
            scripts.calls(invoke("fetch", url="http://x/")),
            scripts.calls(invoke("shell", command="touch x")),
            scripts.final("Oslo [1]"),
        )
    )
    with pytest.raises(ValueError, match="needs the web: give search, or web=True"):
        ToolAgent(gateway.base_url, state_dir=state).browse_retrieve_task("capital of Norway?")
    agent = ToolAgent(gateway.base_url, state_dir=state, other_tools=[Page()])
    run = agent.browse_retrieve_task("capital of Norway?")
    assert run.ending is Ending.REFUSED, "a command after a page from the web"
    assert "a page from the web was read before it" in run.reason
    assert run.sources[0].place == "http://x/"


async def test_it_works_where_an_event_loop_runs(
    gateway: Harness, scripts: Scripts, state: Path
) -> None:
    gateway.script(in_turn(scripts.final("ok")))
    agent = ToolAgent(gateway.base_url, state_dir=state)
    assert agent.execute_with_tools("hello").answer == "ok"


class FakeLLM:
    """An `LLM` whose answers are given."""

    max_model_len = 1000

    def __init__(self, *messages: dict[str, Any]):
        self.messages = list(messages)
        self.asked: list[tuple[Any, Any, Any]] = []

    def get_default_sampling_params(self) -> SamplingParams:
        return SamplingParams()

    def chat(self, messages: Any, sampling_params: Any = None, **others: Any) -> Any:
        self.asked.append((list(messages), sampling_params, others))
        message = self.messages.pop(0)
        choice = CompletionOutput(0, "", [1, 2, 3], finish_reason="stop", message=message)
        metrics = RequestMetrics(0.0, first_token_latency=0.001)
        return [RequestOutput("1", None, [1] * 7, [choice], True, metrics)]


def test_an_llm_can_be_the_model(state: Path) -> None:
    function = {"name": "shell", "arguments": '{"command": "echo hi"}'}
    call = {"id": "c1", "type": "function", "function": function}
    llm = FakeLLM(
        {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "assistant", "content": "ok"},
    )
    run = ToolAgent(llm, state_dir=state).execute_with_tools("do it")
    assert (run.answer, run.calls) == ("ok", ("shell",))
    messages, params, others = llm.asked[1]
    assert messages[-1] == {"role": "tool", "tool_call_id": "c1", "content": "hi\n[1] $ echo hi"}
    assert messages[-2]["reasoning_content"] == "hm"
    assert params.max_tokens is None
    assert others["tools"][0]["function"]["name"] == "python_executor"


def test_bad_arguments_are_named(state: Path) -> None:
    with pytest.raises(ValueError, match="approve: one of ask, edits, all, got 'never'"):
        ToolAgent("http://x", approve="never", state_dir=state)
    agent = ToolAgent("http://127.0.0.1:9", tools=("shell",), state_dir=state)
    with pytest.raises(ValueError, match="needs the tool update_plan"):
        agent.execute_complex_task("x")


def test_it_is_exported() -> None:
    assert "ToolAgent" in expertmesh.__all__
