"""Does a tool loop end, and with its thinking, in each library on a scripted model?

M2 calls the same tool again when the thinking before its call is gone. Some libraries send it back,
others drop it, and then the gateway puts it back.
"""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import (
    LANGCHAIN,
    LLAMA_INDEX,
    OPENAI_AGENTS,
    OPENAI_NODE,
    PYDANTIC_AI,
)
from tests.support.clients.llm_command import LLM, LlmCommand
from tests.support.clients.scripted import WEATHER, assert_thinking_came_back, script_tool_loop
from tests.support.clients.sdks import NodeSdk, Sdk, at
from tests.support.gateway.harness import Harness


def assert_loop_ends(
    client: Sdk | NodeSdk | LlmCommand,
    gateway: Harness,
    home: Path,
    tokenizer: Tokenizer,
    *,
    streamed: bool = False,
    by_the_gateway: bool = True,
) -> None:
    script_tool_loop(gateway, tokenizer)
    assert client.run_loop(at(gateway), home, WEATHER, streamed=streamed) == "it rains"
    assert_thinking_came_back(gateway, tokenizer, by_the_gateway=by_the_gateway)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "client",
    [
        pytest.param(LANGCHAIN, id="langchain"),
        pytest.param(OPENAI_AGENTS, id="openai-agents"),
        pytest.param(OPENAI_NODE, id="openai-node"),
        pytest.param(LLM, id="llm"),
    ],
)
def test_the_gateway_puts_back_what_a_library_drops(
    client: Sdk | NodeSdk | LlmCommand,
    streamed: bool,
    restoring: Harness,
    home: Path,
    tokenizer: Tokenizer,
) -> None:
    assert_loop_ends(client, restoring, home, tokenizer, streamed=streamed)


def test_the_gateway_puts_back_what_llama_index_drops(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    assert_loop_ends(LLAMA_INDEX, restoring, home, tokenizer)


def test_pydantic_ai_sends_its_thinking_back(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    assert_loop_ends(PYDANTIC_AI, restoring, home, tokenizer, by_the_gateway=False)
