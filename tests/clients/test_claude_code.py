"""Claude Code, unmodified, on a scripted model behind the real gateway."""

import json
from collections.abc import Sequence
from pathlib import Path

import grpc

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.clients.claude_code import ask
from tests.support.clients.scripted import cut, text
from tests.support.clients.sdks import at
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import ended, in_turn, say, stopped, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS


def ids_of(request: attention_pb2.GenerateRequest) -> Sequence[int]:
    return request.prompt_token_ids


def test_it_shows_an_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "it is done"), eos=EOS, step=4))
    done = ask(at(gateway), home, "Print hello")
    assert (done.returncode, done.stdout.strip()) == (0, "it is done"), done.stderr
    prompt = tokenizer.decode(ids_of(gateway.fake.requests[0]))
    assert "billing" not in prompt
    assert "Print hello" in prompt


def test_it_runs_two_tools_and_sends_their_results_with_the_thinking(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    calls = [invoke("Bash", command=f"echo {word} > {word}.txt; cat {word}.txt") for word in "ab"]
    gateway.script(
        in_turn(
            say(tool_answer(tokenizer, *calls), eos=EOS, step=8),
            then=say(thinking_answer(tokenizer, "well", "both are there"), eos=EOS, step=8),
        )
    )
    done = ask(at(gateway), home, "--allowedTools", "Bash", "--", "Make two files")
    assert done.stdout.strip() == "both are there", done.stderr + done.stdout
    assert [(home / f"{word}.txt").read_text().strip() for word in "ab"] == ["a", "b"]
    first, second = (list(ids_of(request)) for request in gateway.fake.requests)
    turn = tokenizer.decode(second[len(first) - 1 :])
    assert turn.startswith("\ncall\n</think>\n\n\n<minimax:tool_call>\n"), turn[:200]
    assert second[: len(first)] == first, "the prefix cache would miss"
    assert "<response>a\n</response>" in turn or "<response>a</response>" in turn


def test_it_reports_what_came_from_the_prefix_cache(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    ids = [*thinking_answer(tokenizer, "hm", "it is done"), EOS]
    gateway.script(lambda request: [tokens(0, ids), stopped(len(ids), EOS, cached=1024)])
    done = ask(at(gateway), home, "--output-format", "json", "--", "Print hello")
    usage = json.loads(done.stdout)["usage"]
    num_prompt_tokens = len(ids_of(gateway.fake.requests[0]))
    assert usage["cache_read_input_tokens"] == 1024
    assert usage["input_tokens"] == num_prompt_tokens - 1024


def test_it_understands_that_a_prompt_is_too_long(gateway: Harness, home: Path) -> None:
    done = ask(at(gateway), home, question="y " * 200_000)
    assert "too long" in (done.stdout + done.stderr).lower()
    assert done.returncode


def test_it_comes_back_after_429(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(
        in_turn(
            lambda request: [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")],
            then=text(tokenizer, "now it is"),
        )
    )
    done = ask(at(gateway), home, "Print hello")
    assert done.stdout.strip() == "now it is"
    assert len(gateway.fake.requests) == 2


def test_a_server_that_dies_in_the_stream_is_an_error_to_it(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    ids = thinking_answer(tokenizer, "hm", "it is half")
    gateway.script(
        lambda request: [tokens(0, ids), 0.5, ended(attention_pb2.FINISH_REASON_ERROR, "broke")]
    )
    done = ask(at(gateway), home, "Print hello")
    assert done.returncode
    assert "broke" in done.stdout + done.stderr


def test_a_cut_call_is_never_run(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    ids = tool_answer(tokenizer, invoke("Bash", command="echo cut > cut.txt"))
    gateway.script(in_turn(cut(ids[:-14]), then=text(tokenizer, "too long")))
    done = ask(at(gateway), home, "--allowedTools", "Bash", "--", "Make a file")
    assert not (home / "cut.txt").exists()
    assert done.stdout.strip() == "too long"
    prompt = tokenizer.decode(ids_of(gateway.fake.requests[1]))
    assert "could not be parsed as JSON" in prompt, "the model must learn of it"
