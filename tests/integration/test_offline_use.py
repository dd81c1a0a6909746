"""Offline use for real: scripts written for vLLM, a cluster of processes, the benchmark on both."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from expertmesh import LLM, SamplingParams
from expertmesh.cluster.cluster_plan import demo_model_dir
from moe_model.reference import ReferenceModel
from moe_model.weights.checkpoint import Checkpoint
from tests.support.moe_model.tiny_text_model import write_tiny_text_model
from tests.support.places import ROOT

SCRIPTS = ROOT / "tests" / "support" / "vllm_scripts"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
CONVERSATIONS = [[{"role": "user", "content": f"What is {n} + 8?"}] for n in (4, 31, 600)]
GREEDY = SamplingParams(temperature=0, max_tokens=60)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=ENVIRONMENT,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A detached cluster of real processes: router, two pools, attention, gateway."""
    folder = tmp_path_factory.mktemp("cluster") / "run"
    up = ("up", "--detach", "--http-port", "0", "--run-dir", str(folder))
    started = run("-m", "expertmesh", *up)
    assert started.returncode == 0, started.stderr
    yield folder
    assert run("-m", "expertmesh", "down", "--run-dir", str(folder)).returncode == 0


@pytest.fixture(scope="module")
def url(run_dir: Path) -> str:
    return json.loads((run_dir / "cluster.json").read_text())["url"]


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_a_vllm_script_runs_with_another_import(script: str, tmp_path: Path) -> None:
    source = (SCRIPTS / script).read_text()
    changed = re.sub(r"^from vllm\b", "from expertmesh", source, flags=re.MULTILINE)
    assert changed != source
    (tmp_path / script).write_text(changed)
    done = run(str(tmp_path / script), str(demo_model_dir()))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_in_process_and_over_a_cluster_are_the_reference(run_dir: Path, url: str) -> None:
    reference = ReferenceModel(Checkpoint.open(demo_model_dir()))
    with LLM() as local, LLM(cluster=run_dir) as by_state, LLM(base_url=url) as by_url:
        expected = local.chat(CONVERSATIONS, GREEDY)
        for output in expected:
            choice = output.outputs[0]
            assert choice.token_ids == reference.greedy(
                output.prompt_token_ids, 60, frozenset(choice.token_ids[-1:])
            )
            assert choice.message["content"]
        for llm in (by_state, by_url):
            outputs = llm.chat(CONVERSATIONS, GREEDY)
            assert [o.prompt_token_ids for o in outputs] == [o.prompt_token_ids for o in expected]
            assert [o.outputs[0].token_ids for o in outputs] == [
                o.outputs[0].token_ids for o in expected
            ]
            assert [o.outputs[0].message for o in outputs] == [
                o.outputs[0].message for o in expected
            ]
        seeded = SamplingParams(temperature=1.0, seed=11, n=2, max_tokens=10)
        assert [c.text for c in by_url.generate("Sort", seeded)[0].outputs] == [
            c.text for c in local.generate("Sort", seeded)[0].outputs
        ]
        many = by_url.generate(["Hello"] * 100, SamplingParams(max_tokens=2))
        assert all(output.finished for output in many)


@pytest.mark.parametrize("where", ["in process", "cluster"])
def test_the_example_runs(where: str, url: str) -> None:
    flags = ("--base-url", url) if where == "cluster" else ()
    done = run(str(ROOT / "examples" / "offline_generate.py"), *flags)
    assert done.returncode == 0, done.stderr
    assert "LEMON" in done.stdout
    assert done.stderr == ""


def test_a_class_written_for_vllm_runs_with_a_context_of_131072(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "vllm_style.py")
    model = write_tiny_text_model(tmp_path / "model", max_position_embeddings=131_072)
    done = run(script, "--model", str(model))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "context: 131072"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        *("batch", "batch", "chat", "stream", "tokens")
    ]
    ignored = [line for line in done.stderr.splitlines() if "is ignored" in line]
    assert len(ignored) == len(done.stderr.splitlines()) == 5


def test_the_client_of_minimaxs_path_reads_thinking_and_answer(url: str) -> None:
    done = run(str(ROOT / "examples" / "minimax_client.py"), "--base-url", url)
    assert done.returncode == 0, done.stderr
    *_, thinking, answer, same = done.stdout.splitlines()
    assert re.fullmatch(r"thinking: [1-9]\d* characters", thinking)
    assert "62" in answer
    assert same == "the same whole: True"


def bench(*flags: str) -> dict:
    done = run("-m", "expertmesh", "bench", *flags, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_bench_serve_on_the_cluster(url: str) -> None:
    flags = ("--num-prompts", "12", "--max-concurrency", "4", "--ignore-eos", "--base-url", url)
    result = bench("serve", *flags, "--random-input-len", "20", "--random-output-len", "8")
    assert (result["completed"], result["failed"]) == (12, 0)
    assert result["total_input_tokens"] == 12 * 20
    assert result["total_output_tokens"] == 12 * 8
    assert result["max_concurrent_requests"] <= 4
    assert 0 < result["expert_network_share"] < result["expert_rpc_share"] < 1
    assert result["mean_e2el_ms"] > result["mean_ttft_ms"] > 0


def test_bench_serve_plays_conversations_that_hit_the_prefix_cache(url: str) -> None:
    flags = ("--num-prompts", "3", "--turns", "3", "--random-input-len", "40", "--base-url", url)
    result = bench("serve", *flags, "--random-output-len", "8")
    assert (result["completed"], result["failed"]) == (9, 0)
    assert result["prefix_cache_hit_rate"] > 0.2


def test_bench_offline() -> None:
    flags = ("--num-prompts", "12", "--random-input-len", "20", "--random-output-len", "8")
    result = bench("offline", *flags, "--ignore-eos", "--max-num-seqs", "4")
    assert (result["completed"], result["total_input_tokens"]) == (12, 240)
    assert result["total_output_tokens"] == 96
    assert result["expert_network_share"] == 0
