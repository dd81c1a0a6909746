"""The agent's loop on scripted token ids, through the real gateway and its parser."""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from expertmesh.agent.loop.loop import Ending
from expertmesh.agent.record.run_folder import all_runs, runs_of
from expertmesh.agent.record.trace import read_trace
from expertmesh.agent.tools.tool import Effect, Result, Status, object_schema
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.expertmesh.agent_run import CONTEXT, run_agent
from tests.support.expertmesh.agent_scripts import Scripts
from tests.support.gateway.answers import invoke
from tests.support.gateway.fake_attention import ended, in_turn, tokens
from tests.support.gateway.harness import Harness, LoopThread, ready_status


def everything_below(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


def prompt_of(gateway: Harness, tokenizer: Tokenizer, number: int) -> str:
    return tokenizer.decode(list(gateway.fake.requests[number].prompt_token_ids))


async def test_it_calls_until_it_answers(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    code = "for x in range(3):\n    if x < 2 and x > 0:\n        print('<b>', x)"
    gateway.script(
        in_turn(
            scripts.calls(invoke("python_executor", code=code)),
            scripts.calls(
                invoke("file_editor", action="write", file_path="a.txt", content="one\n"),
                invoke("file_editor", action="append", file_path="a.txt", content="two\n"),
            ),
            scripts.final("It is **done**."),
        )
    )
    ran = await run_agent(gateway.base_url, work, state=state)
    assert (ran.progress.ending, ran.progress.answer) == (Ending.DONE, "It is **done**.")
    assert ran.progress.steps == 3
    assert ran.progress.calls == ["python_executor", "file_editor", "file_editor"]
    assert ran.results()[0] == "<b> 1"
    assert (work / "a.txt").read_text() == "one\ntwo\n"
    assert [one.line() for one in ran.changes.files] == ["added a.txt (+2 -0)"]


async def test_thinking_goes_back_and_the_prompt_only_grows(
    gateway: Harness, scripts: Scripts, tokenizer: Tokenizer, work: Path, state: Path
) -> None:
    gateway.script(
        in_turn(
            scripts.calls(invoke("shell", command="echo hi")),
            scripts.calls(invoke("shell", command="echo ho")),
            scripts.final("ok", thinking="I know now"),
        )
    )
    await run_agent(gateway.base_url, work, state=state)
    first, second, third = (prompt_of(gateway, tokenizer, number) for number in range(3))
    assert second.startswith(first + "call\n</think>\n\n")
    assert third.startswith(second)
    assert "<response>hi\n[1] $ echo hi</response>" in second


async def test_a_malformed_call_is_explained_and_made_right(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    gateway.script(
        in_turn(
            scripts.calls(invoke("file_editor", action="erase", file_path="a")),
            scripts.calls(invoke("shell", command="echo right")),
            scripts.final("ok"),
        )
    )
    ran = await run_agent(gateway.base_url, work, state=state)
    assert ran.progress.ending is Ending.DONE
    refused, made = ran.results()
    assert refused.startswith("Not called: file_editor: action must be one of 'read'")
    assert made == "right\n[1] $ echo right"


async def test_three_invalid_answers_in_a_row_end_the_run(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    gateway.script(lambda request: scripts.calls(invoke("rm_everything"))(request))
    ran = await run_agent(gateway.base_url, work, state=state)
    assert (ran.progress.ending, ran.progress.steps) == (Ending.FAILED, 3)
    assert "3 unusable answers in a row" in ran.progress.reason
    assert "no tool 'rm_everything'; the tools are python_executor" in ran.results()[0]


async def test_several_invalid_calls_of_one_answer_count_once(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    bad = [invoke("no_tool", n=str(n)) for n in range(4)]
    gateway.script(in_turn(scripts.calls(*bad), scripts.final("ok")))
    ran = await run_agent(gateway.base_url, work, state=state)
    assert ran.progress.ending is Ending.DONE


@pytest.mark.parametrize("drop", [2, 20, 45])
async def test_no_call_of_a_cut_answer_is_made(
    gateway: Harness, scripts: Scripts, work: Path, state: Path, drop: int
) -> None:
    """Not even the first one, which is whole."""
    gateway.script(
        in_turn(
            scripts.cut(
                invoke("shell", command="touch first"),
                invoke("shell", command="touch second; rm -rf keep"),
                drop=drop,
            ),
            scripts.final("ok"),
        )
    )
    ran = await run_agent(gateway.base_url, work, state=state)
    assert ran.progress.ending is Ending.DONE
    assert (ran.progress.calls, os.listdir(work)) == ([], [])
    assert not any("tool_calls" in one.get("message", {}) for one in ran.events)
    told = [one["message"]["content"] for one in ran.events if one["event"] == "user"]
    assert told[0] == "do it"
    assert "none of its calls was made" in told[1]


async def test_the_same_call_is_noted_the_second_time_and_ends_the_run_the_third(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    gateway.script(lambda request: scripts.calls(invoke("shell", command="ls"))(request))
    ran = await run_agent(gateway.base_url, work, state=state)
    assert (ran.progress.ending, ran.progress.steps) == (Ending.FAILED, 3)
    assert ran.progress.reason == "the same call of shell for the third time"
    first, second = ran.results()
    assert "this very call before" not in first
    assert "this very call before" in second


async def test_a_call_may_be_repeated_after_a_change(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    turns = []
    for number in range(4):
        turns.append(scripts.calls(invoke("shell", command="cat a.txt")))
        write = {"action": "write", "file_path": "a.txt", "content": str(number)}
        turns.append(scripts.calls(invoke("file_editor", **write)))
    gateway.script(in_turn(*turns, scripts.final("ok")))
    ran = await run_agent(gateway.base_url, work, state=state)
    assert ran.progress.ending is Ending.DONE


async def test_a_failing_check_goes_back_and_a_passing_one_ends_the_run(
    gateway: Harness, scripts: Scripts, tokenizer: Tokenizer, work: Path, state: Path
) -> None:
    gateway.script(
        in_turn(
            scripts.final("I think it is done"),
            scripts.calls(invoke("shell", command="touch made")),
            scripts.final("now it is"),
        )
    )
    ran = await run_agent(gateway.base_url, work, state=state, check="ls made")
    assert ran.progress.ending is Ending.DONE
    assert ran.progress.check
    assert ran.progress.check.passed
    assert "No such file" in prompt_of(gateway, tokenizer, 1)
    assert "`ls made` was run to check it and failed" in prompt_of(gateway, tokenizer, 1)


async def test_three_failing_checks_end_the_run(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    gateway.script(lambda request: scripts.final("done")(request))
    ran = await run_agent(gateway.base_url, work, state=state, check="false")
    assert (ran.progress.ending, ran.progress.steps) == (Ending.CHECK_FAILED, 3)


async def test_it_ends_when_its_steps_are_used(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    numbers = iter(range(100))

    def script(request: attention_pb2.GenerateRequest) -> Any:
        return scripts.calls(invoke("shell", command=f"echo {next(numbers)}"))(request)

    gateway.script(script)
    ran = await run_agent(gateway.base_url, work, state=state, max_steps=4)
    assert (ran.progress.ending, ran.progress.steps) == (Ending.MAX_STEPS, 4)


async def test_an_empty_answer_is_asked_again(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    gateway.script(in_turn(scripts.final(""), scripts.final("ok")))
    ran = await run_agent(gateway.base_url, work, state=state)
    assert (ran.progress.ending, ran.progress.steps) == (Ending.DONE, 2)


async def test_a_stream_that_breaks_off_is_asked_for_again(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    ids = scripts.tokenizer.encode_text("half an ans")
    broken = ended(attention_pb2.FINISH_REASON_ERROR, "the engine fell over")
    gateway.script(
        in_turn(lambda request: [tokens(0, ids), broken], scripts.final("a whole answer"))
    )
    ran = await run_agent(gateway.base_url, work, state=state)
    assert (ran.progress.ending, ran.progress.answer) == (Ending.DONE, "a whole answer")
    assert ran.waits == [1.0]


async def test_a_gateway_without_room_is_asked_again_when_it_says(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    full = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")]
    gateway.script(in_turn(lambda request: full, scripts.final("at last")))
    ran = await run_agent(gateway.base_url, work, state=state)
    assert ran.progress.answer == "at last"
    assert ran.waits == [1.0]


@dataclass
class StopsTheServer:
    """A tool during which the gateway goes away."""

    gateway: Harness
    name: str = "stop"
    description: str = "Stops the server."
    parameters: dict[str, Any] = field(default_factory=lambda: object_schema({}))
    effect: Effect = Effect.READS

    async def call(self, arguments: dict[str, Any]) -> Result:
        self.gateway.close()
        return Result(Status.OK, "stopped")


async def test_a_server_that_is_gone_ends_the_run_and_what_was_done_is_kept(
    agent_loop: LoopThread, agent_model: Path, scripts: Scripts, work: Path, state: Path
) -> None:
    gateway = Harness(agent_loop, agent_model, status=ready_status(CONTEXT))
    gateway.script(in_turn(scripts.calls(invoke("shell", command="touch made"), invoke("stop"))))
    ran = await run_agent(gateway.base_url, work, state=state, others=[StopsTheServer(gateway)])
    assert ran.progress.ending is Ending.UNREACHABLE
    assert "cannot reach" in ran.progress.reason
    assert ran.waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert (work / "made").exists()
    assert [one["event"] for one in ran.events][-2:] == ["end", "changes"]


async def test_older_results_make_room_and_what_comes_after_grows_again(
    gateway: Harness, scripts: Scripts, tokenizer: Tokenizer, work: Path, state: Path
) -> None:
    count = 10
    turns = [
        scripts.calls(invoke("shell", command=f"seq -f '{number} %g' 300"))
        for number in range(1, count)
    ]
    gateway.script(in_turn(*turns, scripts.final("ok")))
    ran = await run_agent(gateway.base_url, work, state=state, max_model_len=CONTEXT)
    assert ran.progress.ending is Ending.DONE
    prompts = [prompt_of(gateway, tokenizer, number) for number in range(count)]
    broken = [n for n in range(1, count) if not prompts[n].startswith(prompts[n - 1])]
    assert len(broken) == 1
    compacted = [one for one in ran.events if one["event"] == "compact"]
    assert len(compacted) == 1
    assert len(compacted[0]["replaced"]) == broken[0] - 2
    after = prompts[broken[0]]
    assert "[The result of shell in step 1 (ok, " in after
    assert "left out to save room; all of it: @outputs/1.txt]" in after
    assert f"{broken[0]} 300" in after  # the last two are still there
    assert all(len(one.prompt_token_ids) < CONTEXT for one in gateway.fake.requests)
    kept = ran.session.folder.outputs / "1.txt"
    assert kept.read_text().startswith("1 1\n1 2\n")


async def test_a_conversation_that_the_server_finds_too_long_is_shortened(
    gateway: Harness, scripts: Scripts, tokenizer: Tokenizer, work: Path, state: Path
) -> None:
    """Its length is not known before, and the newest results alone are too much."""
    commands = [invoke("shell", command=f"seq -f '{number} %g' 4000") for number in range(4)]
    turns = scripts.calls(commands[0]), scripts.calls(*commands[1:])
    gateway.script(in_turn(*turns, scripts.final("ok")))
    ran = await run_agent(gateway.base_url, work, state=state, max_model_len=None)
    assert ran.progress.ending is Ending.DONE
    prompt = prompt_of(gateway, tokenizer, 2)
    assert prompt.count("[The result of shell in step 1") == 1
    assert prompt.count("[The result of shell in step 2") == 3
    assert len([one for one in ran.events if one["event"] == "compact"]) == 2


async def test_cancelling_ends_the_running_command_and_is_written_down(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    command = "echo $$ > pid; exec sleep 60"
    gateway.script(in_turn(scripts.calls(invoke("shell", command=command))))
    task = asyncio.create_task(run_agent(gateway.base_url, work, state=state))
    while not (work / "pid").exists() or not (work / "pid").read_text():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(int((work / "pid").read_text()))
    (run,) = all_runs(runs_of(state))
    assert read_trace(run.trace)[-1]["ending"] == "interrupted"


async def test_secrets_are_masked_in_the_trace_and_in_kept_outputs(
    gateway: Harness,
    scripts: Scripts,
    tokenizer: Tokenizer,
    work: Path,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "correct-horse-battery")
    (work / "env").write_text("key=correct-horse-battery sk-abcdefghijklmnop1234 given-key-9")
    gateway.script(in_turn(scripts.calls(invoke("shell", command="cat env")), scripts.final("ok")))
    ran = await run_agent(gateway.base_url, work, state=state, secrets=("given-key-9",))
    assert "correct-horse-battery" in prompt_of(gateway, tokenizer, 1)
    for path in (ran.session.folder.trace, ran.session.folder.outputs / "1.txt"):
        text = path.read_text()
        assert "horse" not in text
        assert "abcdefghijklmnop1234" not in text
        assert "given-key-9" not in text
    assert "key=[masked] [masked] [masked]" in ran.results()[0]


async def test_only_the_owner_can_read_what_is_kept(
    gateway: Harness, scripts: Scripts, work: Path, state: Path
) -> None:
    (work / "a.txt").write_text("before")
    change = invoke("shell", command="echo after > a.txt")
    gateway.script(in_turn(scripts.calls(change), scripts.final("ok")))
    await run_agent(gateway.base_url, work, state=state)
    found = everything_below(runs_of(state))
    assert len(found) > 8
    for path in found:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
