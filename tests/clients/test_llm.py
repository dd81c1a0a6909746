"""The command `llm`, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.llm_command import LLM
from tests.support.clients.scripted import WEATHER, grammars, text
from tests.support.clients.sdks import at
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS


@pytest.mark.parametrize("words", [[], ["--no-stream"]])
def test_it_shows_an_answer(
    gateway: Harness, home: Path, tokenizer: Tokenizer, words: list[str]
) -> None:
    gateway.script(text(tokenizer, "hi there"))
    assert LLM.ask(at(gateway), home, *words, "hello").stdout.strip() == "hi there"


def test_a_completion_model_continues_the_text(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(say(tokenizer.encode_text(" upon a time"), eos=EOS))
    assert LLM.ask(at(gateway), home, "-m", "plain", "Once").stdout.strip() == "upon a time"
    assert tokenizer.decode(gateway.fake.requests[0].prompt_token_ids) == "Once"


def test_a_schema_is_kept(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, '{"days": 2}'))
    shown = LLM.ask(at(gateway), home, "--schema", "days int", "hello").stdout
    assert shown.strip() == '{"days": 2}'
    assert all(grammars(gateway))


def test_it_shows_errors(gateway: Harness, home: Path) -> None:
    words = "--functions", WEATHER.python, "hello", "-o", "max_tokens", "0"
    done = LLM.ask(at(gateway), home, *words)
    assert done.returncode
    assert "max_tokens" in done.stderr
