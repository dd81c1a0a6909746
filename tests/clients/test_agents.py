"""Coding agents on the chat API, unmodified, on a scripted model behind the real gateway."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.clients.agents import MINI, OPENCODE, QWEN, Agent
from tests.support.clients.scripted import cut
from tests.support.gateway.answers import thinking_answer, tool_answer
from tests.support.gateway.fake_attention import Script, ended, in_turn, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS


@pytest.fixture(
    params=[
        pytest.param(OPENCODE, id="opencode"),
        pytest.param(QWEN, id="qwen"),
        pytest.param(MINI, id="mini"),
    ]
)
def agent(request: pytest.FixtureRequest) -> Agent:
    found: Agent = request.param
    return found


class Model:
    """Answers an agent's turns one after another, and asks for a title by the way."""

    def __init__(self, agent: Agent, gateway: Harness, tokenizer: Tokenizer):
        self.agent = agent
        self.tokenizer = tokenizer
        self.prompts: list[list[int]] = []
        self._gateway = gateway

    def answers(self, *turns: Script) -> None:
        turn = in_turn(*turns[:-1], then=turns[-1])

        def script(request: attention_pb2.GenerateRequest) -> Iterable[Any]:
            ids = list(request.prompt_token_ids)
            if "<tools>" not in self.tokenizer.decode(ids):
                return say(thinking_answer(self.tokenizer, "hm", "A title"), eos=EOS)(request)
            self.prompts.append(ids)
            return turn(request)

        self._gateway.script(script)

    def last(self, answer: str) -> Script:
        return say(self.agent.last(self.tokenizer, answer), eos=EOS, step=4)

    def calls(self, *commands: str) -> list[int]:
        return tool_answer(self.tokenizer, *(self.agent.shell(command) for command in commands))


@pytest.fixture
def model(agent: Agent, gateway: Harness, tokenizer: Tokenizer) -> Model:
    return Model(agent, gateway, tokenizer)


def test_it_shows_an_answer(agent: Agent, gateway: Harness, home: Path, model: Model) -> None:
    model.answers(model.last("it is done"))
    done = agent.ask(gateway, home, "Print hello")
    assert done.returncode == 0, done.stderr
    assert "it is done" in done.stdout
    assert "Print hello" in model.tokenizer.decode(model.prompts[0])


def test_it_runs_two_tools_and_sends_their_results_with_the_thinking(
    agent: Agent, gateway: Harness, home: Path, model: Model
) -> None:
    commands = [f"echo $((40 + {number})) > {number}.txt; cat {number}.txt" for number in (1, 2)]
    model.answers(
        say(model.calls(*commands), eos=EOS, step=8),
        model.last("both are there"),
    )
    done = agent.ask(gateway, home, "Make two files")
    assert done.returncode == 0, done.stderr
    assert "both are there" in done.stdout
    assert [(home / f"{number}.txt").read_text() for number in (1, 2)] == ["41\n", "42\n"]
    first, second = model.prompts
    assert second[: len(first)] == first, "the prefix cache would miss"
    turn = model.tokenizer.decode(second[len(first) - 1 :])
    assert turn.startswith("\ncall\n</think>\n\n\n<minimax:tool_call>\n"), turn[:200]
    _, one, two = turn.split("<response>")
    assert ("41" in one, "42" in two) == (True, True), turn


def test_it_says_that_a_prompt_is_too_long(
    agent: Agent, gateway: Harness, home: Path, model: Model
) -> None:
    model.answers(model.last("never"))
    done = agent.ask(gateway, home, "y " * 200_000)
    shown = " ".join((done.stdout + done.stderr).split())
    assert "maximum context length is 400000 tokens" in shown, shown[-2000:]
    assert done.returncode
    assert not model.prompts


def test_it_comes_back_after_429(agent: Agent, gateway: Harness, home: Path, model: Model) -> None:
    model.answers(
        lambda request: [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")],
        model.last("now it is"),
    )
    done = agent.ask(gateway, home, "Print hello")
    assert "now it is" in done.stdout, done.stderr
    assert len(model.prompts) == 2


def test_half_an_answer_is_never_taken_for_one(
    agent: Agent, gateway: Harness, home: Path, model: Model
) -> None:
    """When the server dies in the stream. Qwen Code reports it, the others ask once more."""
    half = thinking_answer(model.tokenizer, "hm", "it is half")
    model.answers(
        lambda r: [tokens(0, half), 0.5, ended(attention_pb2.FINISH_REASON_ERROR, "broke")],
        model.last("it came back"),
    )
    done = agent.ask(gateway, home, "Print hello")
    if agent is QWEN:
        assert done.returncode
        assert "[API Error: broke]" in done.stderr
        assert len(model.prompts) == 1
    else:
        assert "it came back" in done.stdout, done.stderr
        assert len(model.prompts) == 2


def test_a_cut_call_is_never_run(agent: Agent, gateway: Harness, home: Path, model: Model) -> None:
    model.answers(cut(model.calls("echo cut > cut.txt")[:-14]), model.last("too long"))
    done = agent.ask(gateway, home, "Make a file")
    assert not (home / "cut.txt").exists()
    assert "too long" in done.stdout, done.stderr
    assert len(model.prompts) >= 2
