"""`expertmesh agent` with the demonstration model and the real sandbox, as a newcomer uses it."""

import json
from pathlib import Path

import pytest

from expertmesh import ToolAgent
from tests.support.expertmesh.up import expertmesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("task", "number"),
    [
        ("What is 123456 * 654321? Use python_executor", 123456 * 654321),
        ("What is 987654 * 123456?", 987654 * 123456),
        ("1234567乘以7654321等于多少？请用python_executor。", 1234567 * 7654321),
    ],
)
def test_a_product_is_computed_by_the_tool(
    url: str, work: Path, tmp_path: Path, task: str, number: int
) -> None:
    done = expertmesh(
        *("agent", task, "--base-url", url, "--dir", str(work), "--approve", "all"),
        *("--temperature", "0", "--json"),
        XDG_STATE_HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert str(number) in told["answer"]
    assert told["calls"] == ["python_executor"]
    assert told["cached_tokens"] > 0


def test_without_a_terminal_nothing_runs_unless_it_was_allowed(
    url: str, work: Path, tmp_path: Path
) -> None:
    task = "What is 123456 * 654321? Use python_executor"
    done = expertmesh(
        *("agent", task, "--base-url", url, "--dir", str(work)), XDG_STATE_HOME=str(tmp_path)
    )
    assert (done.returncode, done.stdout) == (6, "")
    assert "give --approve all" in done.stderr


@pytest.mark.usefixtures("work")
def test_a_program_uses_it(url: str, tmp_path: Path) -> None:
    agent = ToolAgent(url, state_dir=tmp_path / "state")
    run = agent.execute_with_tools("What is 123456 * 654321? Use python_executor", max_steps=10)
    assert run.succeeded, run.reason
    assert str(123456 * 654321) in run.answer
