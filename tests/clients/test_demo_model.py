"""Which libraries and measuring tools run, unmodified, on the demonstration model itself?"""

import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import (
    LANGCHAIN,
    LLAMA_INDEX,
    OPENAI_AGENTS,
    OPENAI_NODE,
    PYDANTIC_AI,
    SMOLAGENTS,
)
from tests.support.clients.llm_command import LLM, LlmCommand
from tests.support.clients.measuring import guidellm, lm_eval
from tests.support.clients.programs import RUN_S
from tests.support.clients.sdks import NodeSdk, Place, Sdk, Task
from tests.support.places import DEMO_MODEL
from tests.support.served_model import serve

PRODUCT = Task(
    question="What is 123456 × 654321?",
    tool="python_executor",
    python='''
def python_executor(code: str) -> str:
    """Run Python code and return what it prints.

    Args:
        code: The code to run.
    """
    import subprocess, sys
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
''',
    javascript="""
const TOOL = {
  type: "function",
  function: {
    name: "python_executor",
    description: "Run Python code and return what it prints.",
    parameters: {type: "object", properties: {code: {type: "string"}}, required: ["code"]},
    parse: JSON.parse,
    function: ({code}) => require("child_process").execFileSync("python3", ["-c", code]).toString(),
  },
}
""",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With the thinking put back, as `expertmesh up` does."""
    for served in serve(tmp_path_factory.mktemp("state") / "epoch", "--restore-thinking", "always"):
        yield Place(served.url, served.model)


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(LANGCHAIN, id="langchain"),
        pytest.param(OPENAI_AGENTS, id="openai-agents"),
        pytest.param(OPENAI_NODE, id="openai-node"),
        pytest.param(LLM, id="llm"),
        pytest.param(PYDANTIC_AI, id="pydantic-ai"),
        pytest.param(LLAMA_INDEX, id="llama-index"),
    ],
)
def test_a_tool_loop_ends_with_the_answer(
    client: Sdk | NodeSdk | LlmCommand, demo: Place, home: Path
) -> None:
    assert str(123456 * 654321) in client.run_loop(demo, home, PRODUCT)


def test_smolagents_gets_an_answer(demo: Place, home: Path) -> None:
    program = """
asked = [{"role": "user", "content": [{"type": "text", "text": "What is 4783 + 2959?"}]}]
print(json.dumps(model(asked).content))
"""
    assert "7742" in SMOLAGENTS.run(demo, home, program)


def test_the_first_step_of_smolagents_makes_the_right_call(demo: Place, home: Path) -> None:
    """The next ones do not: the result comes as a user's message, which starts a new task to it."""
    program = f"""
{PRODUCT.python}
tools = [tool(python_executor)]
agent = ToolCallingAgent(tools=tools, model=model, verbosity_level=0, max_steps=1)
agent.run({PRODUCT.question!r})
print(json.dumps(agent.memory.steps[1].observations))
"""
    assert SMOLAGENTS.run(demo, home, program).strip() == str(123456 * 654321)


SUMS = [
    {"question": "What is 4783 + 2959?", "answer": "4783 + 2959 = 7742"},
    {"question": "What is 12 + 30?", "answer": "12 + 30 = 42"},
]


def test_lm_eval_scores_chat_answers(demo: Place, home: Path) -> None:
    task = {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n\n"], "temperature": 0, "max_gen_toks": 300},
        "metric_list": [{"metric": "exact_match"}],
    }
    place = {"model": demo.model, "base_url": f"{demo.url}/v1/chat/completions"}
    scores = lm_eval(home, task, SUMS, "local-chat-completions", place, "--apply_chat_template")
    assert scores["exact_match,none"] == 1


@pytest.mark.parametrize("tokenized", [True, False])
def test_lm_eval_scores_choices_by_the_logprobs_of_echoed_prompts(
    demo: Place, home: Path, tokenized: bool
) -> None:
    """With the model's own tokenizer; prompts go as token ids or as text."""
    task = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": 0,
        "doc_to_choice": ["42", "nonsense"],
        "metric_list": [{"metric": "acc"}],
    }
    place = {
        "model": demo.model,
        "base_url": f"{demo.url}/v1/completions",
        "tokenizer": str(DEMO_MODEL),
        "tokenized_requests": str(tokenized),
    }
    scores = lm_eval(home, task, SUMS[1:], "local-completions", place)
    assert scores["acc,none"] == 1


@pytest.mark.parametrize("tokenized", [True, False])
def test_lm_eval_rolls_over_a_text_as_the_model_scores_it(
    demo: Place, home: Path, tokenized: bool
) -> None:
    """As text, the token that it puts first is text too, and what it consists of is scored."""
    sentence = "What is 12 + 30? 12 + 30 = 42"
    task = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    place = {
        "model": demo.model,
        "base_url": f"{demo.url}/v1/completions",
        "tokenizer": str(DEMO_MODEL),
        "tokenized_requests": str(tokenized),
    }
    scores = lm_eval(home, task, [{"text": sentence}], "local-completions", place)

    tokenizer = Tokenizer.load(DEMO_MODEL)
    start = "]~!b["
    ids = [tokenizer.marker_ids[start], *tokenizer.encode_text(sentence)]
    asked = {"model": demo.model, "prompt": ids if tokenized else start + sentence}
    echoed = httpx.post(
        f"{demo.url}/v1/completions",
        json={**asked, "max_tokens": 0, "echo": True, "logprobs": 1},
        timeout=RUN_S,
    ).json()
    _, *logprobs = echoed["choices"][0]["logprobs"]["token_logprobs"]
    bits = -sum(logprobs) / math.log(2) / len(sentence)
    assert scores["bits_per_byte,none"] == pytest.approx(bits, rel=1e-3)


def test_guidellm_measures(demo: Place, home: Path) -> None:
    ended = guidellm(demo, home, DEMO_MODEL)
    assert (ended["successful"], ended["total"]) == (3, 3), ended
