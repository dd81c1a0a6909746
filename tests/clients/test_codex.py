"""Codex, unmodified, on a scripted model behind the real gateway."""

from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.clients import environments, programs
from tests.support.clients.scripted import cut
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import ended, in_turn, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

VERSION = "0.171.0"
CONFIG = """\
model = "{model}"
model_provider = "mesh"
[model_providers.mesh]
name = "mesh"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "MESH_KEY"
request_max_retries = 2
stream_max_retries = 1
"""


@pytest.fixture(scope="session")
def codex() -> Path:
    return environments.node("@openai/codex", VERSION, "codex")


def ask(codex: Path, gateway: Harness, home: Path, question: str) -> programs.Finished:
    """One question on standard input, answered in the terminal."""
    folder = home / ".codex"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(CONFIG.format(model=NAME, url=gateway.base_url))
    command = [str(codex), "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", "-"]
    return programs.run(command, home, {"MESH_KEY": "any"}, question=question)


def ids_of(request: attention_pb2.GenerateRequest) -> list[int]:
    return list(request.prompt_token_ids)


def prompts(gateway: Harness, tokenizer: Tokenizer) -> Sequence[str]:
    return [tokenizer.decode(ids_of(request)) for request in gateway.fake.requests]


def test_it_shows_an_answer(
    codex: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "it is done"), eos=EOS, step=4))
    done = ask(codex, gateway, home, "Print hello")
    assert (done.returncode, done.stdout.strip()) == (0, "it is done"), done.stderr
    (prompt,) = prompts(gateway, tokenizer)
    assert "Print hello" in prompt
    assert '"name": "multi_agent_v1.spawn_agent"' in prompt
    assert "web_search" not in prompt.partition("</tools>")[0]


def test_it_runs_a_tool_and_sends_the_result_with_the_thinking(
    codex: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    ids = tool_answer(tokenizer, invoke("exec_command", cmd="echo made > made.txt; cat made.txt"))
    gateway.script(
        in_turn(
            say(ids, eos=EOS, step=8),
            say(thinking_answer(tokenizer, "well", "it is there"), eos=EOS, step=8),
        )
    )
    done = ask(codex, gateway, home, "Make a file")
    assert done.stdout.strip() == "it is there", done.stderr + done.stdout
    assert (home / "made.txt").read_text().strip() == "made"
    first, second = map(ids_of, gateway.fake.requests)
    emitted = [*first, *ids, EOS]
    assert second[: len(emitted)] == emitted, "the prefix cache would miss"
    assert "made" in tokenizer.decode(second[len(emitted) :])


def test_a_call_in_a_namespace_reaches_its_tool(
    codex: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    ids = tool_answer(tokenizer, invoke("multi_agent_v1.close_agent", target="nobody"))
    gateway.script(
        in_turn(say(ids, eos=EOS), say(thinking_answer(tokenizer, "well", "nobody there"), eos=EOS))
    )
    done = ask(codex, gateway, home, "Close the other")
    assert done.stdout.strip() == "nobody there", done.stderr + done.stdout
    first, second = map(ids_of, gateway.fake.requests)
    emitted = [*first, *ids, EOS]
    assert second[: len(emitted)] == emitted, "the prefix cache would miss"
    told = tokenizer.decode(second[len(emitted) :])
    assert "unsupported call" not in told
    assert "nobody" in told


def test_it_understands_that_an_input_is_too_long(
    codex: Path, gateway: Harness, home: Path
) -> None:
    done = ask(codex, gateway, home, "y " * 200_000)
    assert "context window" in done.stdout + done.stderr
    assert done.returncode


def test_it_comes_back_after_429(
    codex: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            lambda request: [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")],
            say(thinking_answer(tokenizer, "hm", "now it is"), eos=EOS),
        )
    )
    done = ask(codex, gateway, home, "Print hello")
    assert done.stdout.strip() == "now it is", done.stderr
    assert len(gateway.fake.requests) == 2


def test_it_asks_again_after_a_stream_that_broke(
    codex: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    half = thinking_answer(tokenizer, "hm", "it is half")
    gateway.script(
        in_turn(
            lambda request: [
                *(tokens(0, half), 0.5, ended(attention_pb2.FINISH_REASON_ERROR, "broke")),
            ],
            say(thinking_answer(tokenizer, "hm", "it is whole"), eos=EOS),
        )
    )
    done = ask(codex, gateway, home, "Print hello")
    assert done.stdout.strip().endswith("it is whole"), done.stderr
    assert len(gateway.fake.requests) == 2


def test_a_cut_call_is_never_run(
    codex: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    ids = tool_answer(tokenizer, invoke("exec_command", cmd="echo cut > cut.txt"))
    gateway.script(cut(ids[:-14]))
    done = ask(codex, gateway, home, "Make a file")
    assert not (home / "cut.txt").exists()
    assert done.returncode
    assert "max_output_tokens" in done.stdout + done.stderr
