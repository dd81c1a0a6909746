"""Claude Code, unmodified, on a scripted model behind the real gateway."""

import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.clients import environments
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import ended, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

pytestmark = pytest.mark.timeout(300)

VERSION = "2.1.197"
RUN_S = 240
Script = Callable[[attention_pb2.GenerateRequest], Iterable[Any]]


@pytest.fixture(scope="session")
def claude() -> Path:
    return environments.node("@anthropic-ai/claude-code", VERSION, "claude")


def run(
    claude: Path, gateway: Harness, home: Path, *words: str, question: str = ""
) -> subprocess.CompletedProcess[str]:
    """One question, among the words or on standard input, answered in the terminal."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ANTHROPIC_BASE_URL": gateway.base_url,
        "ANTHROPIC_AUTH_TOKEN": "any",
        "ANTHROPIC_MODEL": NAME,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    return subprocess.run(
        [str(claude), "-p", *words],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        input=question,
    )


def one_after_another(*scripts: Script) -> Script:
    """The next script for each request; the last one stays."""
    left = list(scripts)

    def script(request: attention_pb2.GenerateRequest) -> Iterable[Any]:
        return (left.pop(0) if len(left) > 1 else left[0])(request)

    return script


def ids_of(request: attention_pb2.GenerateRequest) -> Sequence[int]:
    return request.prompt_token_ids


def test_it_shows_an_answer(
    claude: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "it is done"), eos=EOS, step=4))
    done = run(claude, gateway, home, "Print hello")
    assert (done.returncode, done.stdout.strip()) == (0, "it is done"), done.stderr
    prompt = tokenizer.decode(ids_of(gateway.fake.requests[0]))
    assert "billing" not in prompt
    assert "Print hello" in prompt


def test_it_runs_two_tools_and_sends_their_results_with_the_thinking(
    claude: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    calls = [invoke("Bash", command=f"echo {word} > {word}.txt; cat {word}.txt") for word in "ab"]
    gateway.script(
        one_after_another(
            say(tool_answer(tokenizer, *calls), eos=EOS, step=8),
            say(thinking_answer(tokenizer, "well", "both are there"), eos=EOS, step=8),
        )
    )
    done = run(claude, gateway, home, "--allowedTools", "Bash", "--", "Make two files")
    assert done.stdout.strip() == "both are there", done.stderr + done.stdout
    assert [(home / f"{word}.txt").read_text().strip() for word in "ab"] == ["a", "b"]
    first, second = (list(ids_of(request)) for request in gateway.fake.requests)
    turn = tokenizer.decode(second[len(first) - 1 :])
    assert turn.startswith("\ncall\n</think>\n\n\n<minimax:tool_call>\n"), turn[:200]
    assert second[: len(first)] == first, "the prefix cache would miss"
    assert "<response>a\n</response>" in turn or "<response>a</response>" in turn


def test_it_understands_that_a_prompt_is_too_long(
    claude: Path, gateway: Harness, home: Path
) -> None:
    done = run(claude, gateway, home, question="y " * 200_000)
    assert "too long" in (done.stdout + done.stderr).lower()
    assert done.returncode


def test_it_comes_back_after_429(
    claude: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        one_after_another(
            lambda request: [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")],
            say(thinking_answer(tokenizer, "hm", "now it is"), eos=EOS),
        )
    )
    done = run(claude, gateway, home, "Print hello")
    assert done.stdout.strip() == "now it is"
    assert len(gateway.fake.requests) == 2


def test_a_server_that_dies_in_the_stream_is_an_error_to_it(
    claude: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    ids = thinking_answer(tokenizer, "hm", "it is half")
    gateway.script(
        lambda request: [tokens(0, ids), 0.5, ended(attention_pb2.FINISH_REASON_ERROR, "broke")]
    )
    done = run(claude, gateway, home, "Print hello")
    assert done.returncode
    assert "broke" in done.stdout + done.stderr


def test_a_cut_call_is_never_run(
    claude: Path, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    ids = tool_answer(tokenizer, invoke("Bash", command="echo cut > cut.txt"))
    cut = ids[:-14]

    def script(request: attention_pb2.GenerateRequest) -> Iterable[Any]:
        return [
            tokens(0, cut),
            attention_pb2.Finished(
                reason=attention_pb2.FINISH_REASON_LENGTH,
                usage=attention_pb2.Usage(generated_tokens=len(cut)),
            ),
        ]

    gateway.script(
        one_after_another(script, say(thinking_answer(tokenizer, "oh", "too long"), eos=EOS))
    )
    done = run(claude, gateway, home, "--allowedTools", "Bash", "--", "Make a file")
    assert not (home / "cut.txt").exists()
    assert done.stdout.strip() == "too long"
    prompt = tokenizer.decode(ids_of(gateway.fake.requests[1]))
    assert "could not be parsed as JSON" in prompt, "the model must learn of it"
