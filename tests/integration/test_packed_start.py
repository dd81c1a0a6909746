"""Real services answer from packed weights as from a checkpoint held in the same formats."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from expertmesh import LLM, SamplingParams
from expertmesh.cluster.cluster_plan import demo_model_dir
from moe_model.kernels.cpu import library
from tests.support.places import ROOT

QUESTIONS = [f"What is {n} + 3?" for n in (19, 4728)] + ["Sort: 9 4 7", "你好"]
GREEDY = SamplingParams(temperature=0, max_tokens=40)
INT8 = ("--dtype", "bf16", "--expert-dtype", "int8", "--linear-dtype", "int8")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(library.load() is None, reason="packed weights are for the native kernels"),
]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "expertmesh", *command],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "demo-int8"
    flags = ("--format", "int8", "--linear-format", "int8")
    done = run("model", "quantise", str(demo_model_dir()), str(out), *flags)
    assert done.returncode == 0, done.stderr
    return out


@contextlib.contextmanager
def cluster(folder: Path, *flags: str) -> Iterator[str]:
    """The URL of `up` with these flags."""
    up = ("up", "--detach", "--http-port", "0", "--run-dir", str(folder), *flags)
    started = run(*up, "--kv-memory", "64MiB")
    assert started.returncode == 0, started.stderr
    try:
        yield json.loads((folder / "cluster.json").read_text())["url"]
    finally:
        assert run("down", "--run-dir", str(folder)).returncode == 0


def answers(llm: LLM) -> list[list[int]]:
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [list(output.outputs[0].token_ids) for output in llm.chat(conversations, GREEDY)]


def test_the_tokens_are_those_of_the_checkpoint_in_the_same_formats(packed: Path, tmp_path: Path):
    with cluster(tmp_path / "original", "--model", str(demo_model_dir()), *INT8) as url:
        original = httpx.get(url + "/version").json()
        with LLM(base_url=url) as llm:
            expected = answers(llm)
    assert all(len(tokens) > 3 for tokens in expected)
    with cluster(tmp_path / "mapped", "--model", str(packed)) as url:
        assert httpx.get(url + "/version").json() == original
        with LLM(base_url=url) as llm:
            assert answers(llm) == expected
    with LLM(model=str(packed), kv_memory="64MiB") as llm:
        assert answers(llm) == expected


@pytest.mark.parametrize(
    "flags,message",
    [
        (("--expert-dtype", "int4"), "--expert-dtype int4: {} is packed in int8"),
        (("--linear-dtype", "bf16"), "--linear-dtype bf16: {} is packed in int8"),
        (("--in-process", "--dtype", "f32"), "--dtype f32: {} computes in bf16"),
    ],
)
def test_up_refuses_flags_that_contradict_the_folder(
    packed: Path, tmp_path: Path, flags: tuple[str, ...], message: str
):
    done = run("up", "--model", str(packed), "--run-dir", str(tmp_path), *flags)
    assert done.returncode == 2
    assert message.format(packed) in done.stderr.replace("\n", " ")
