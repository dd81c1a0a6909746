"""aider, unmodified, on a scripted model behind the real gateway.

It has no tools: it reads from the answer's text how files are to be changed.
"""

from pathlib import Path

import grpc
import pytest

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.clients.agents import AIDER
from tests.support.clients.scripted import cut, text
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import ended, in_turn, tokens
from tests.support.gateway.harness import Harness

CHANGE = "hello.txt\n```\ngood day\n```\n"


def test_it_changes_a_file_and_shows_the_thinking(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, f"I change it.\n\n{CHANGE}"))
    done = AIDER.ask(gateway, home, "Be more formal")
    assert (done.returncode, (home / "hello.txt").read_text()) == (0, "good day\n"), done.stdout
    assert "hm" in done.stdout
    assert "I change it." in done.stdout
    prompt = tokenizer.decode(gateway.fake.requests[0].prompt_token_ids)
    assert "Be more formal" in prompt


def test_it_says_that_a_prompt_is_too_long(gateway: Harness, home: Path) -> None:
    done = AIDER.ask(gateway, home, "y " * 200_000)
    assert "has hit a token limit" in done.stdout
    assert not gateway.fake.requests


@pytest.mark.parametrize("dies", [False, True], ids=["429", "server dies in the answer"])
def test_it_asks_again(gateway: Harness, home: Path, tokenizer: Tokenizer, dies: bool) -> None:
    """And does not take half a change for one."""
    half = thinking_answer(tokenizer, "hm", CHANGE.replace("good day", "good"))
    broken = ended(attention_pb2.FINISH_REASON_ERROR, "broke")
    gateway.script(
        in_turn(
            (lambda r: [tokens(0, half), 0.5, broken])
            if dies
            else (lambda r: [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")]),
            text(tokenizer, CHANGE),
        )
    )
    done = AIDER.ask(gateway, home, "Be more formal")
    assert (home / "hello.txt").read_text() == "good day\n", done.stdout + done.stderr


def test_a_cut_change_is_not_made(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(cut(thinking_answer(tokenizer, "hm", CHANGE[:-6])))
    done = AIDER.ask(gateway, home, "Be more formal")
    assert (home / "hello.txt").read_text() == "hello\n", done.stdout
    assert "token limit" in done.stdout
