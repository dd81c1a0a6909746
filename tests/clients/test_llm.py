"""The command `llm`, unmodified, on a scripted model behind the real gateway."""

import os
import subprocess
from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import environments, sdks
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME

pytestmark = pytest.mark.timeout(300)

REQUIREMENT = "llm==0.36"
FUNCTIONS = """
def weather(place: str) -> str:
    "The weather of a place"
    return "rain"
"""


def run(gateway: Harness, home: Path, *words: str) -> str:
    """What `llm` prints for a question, with the gateway as an extra model."""
    (home / "extra-openai-models.yaml").write_text(
        f"- model_id: mesh\n  model_name: {NAME}\n  api_base: {gateway.base_url}/v1\n"
        "  api_key_name: mesh\n  supports_tools: true\n  supports_schema: true\n"
    )
    command = environments.python("llm", REQUIREMENT).with_name("llm")
    done = subprocess.run(
        [str(command), "-m", "mesh", "--key", sdks.KEY, *words],
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "LLM_USER_PATH": str(home)},
        capture_output=True,
        text=True,
        timeout=sdks.RUN_S,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("words", [[], ["--no-stream"]])
def test_it_shows_an_answer(
    gateway: Harness, home: Path, tokenizer: Tokenizer, words: list[str]
) -> None:
    gateway.script(sdks.text(tokenizer, "hi there"))
    assert run(gateway, home, *words, "hello") == "hi there"


@pytest.mark.parametrize("words", [[], ["--no-stream"]])
def test_a_tool_loop_ends(
    restoring: Harness, home: Path, tokenizer: Tokenizer, words: list[str]
) -> None:
    sdks.script_tool_loop(restoring, tokenizer)
    question = "The weather in Rome?"
    assert run(restoring, home, *words, "--functions", FUNCTIONS, question) == "it rains"
    sdks.assert_thinking_came_back(restoring, tokenizer, by_the_gateway=True)


def test_a_schema_is_kept(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(sdks.text(tokenizer, '{"days": 2}'))
    assert run(gateway, home, "--schema", "days int", "hello") == '{"days": 2}'
    assert all(sdks.grammars(gateway))


def test_it_shows_errors(gateway: Harness, home: Path) -> None:
    shown = run(gateway, home, "--functions", FUNCTIONS, "y " * 50_000, "-o", "max_tokens", "0")
    assert "max_tokens" in shown
