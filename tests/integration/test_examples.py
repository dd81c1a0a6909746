"""The examples run as they stand against a running mesh, with the stubs alone."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from moe_model.families.minimax_m2.tiny_config import TINY
from moe_model.maths.experts import run_experts
from moe_model.reference import ReferenceModel, load_experts
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import ensure_manifest
from tests.support.mesh import Mesh
from tests.support.places import ROOT

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
HIDDEN_SIZE = TINY["hidden_size"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "model"
    write_tiny(folder, seed=31, fp8=True)
    return folder


@pytest.fixture(scope="module")
def mesh(model: Path) -> Iterator[Mesh]:
    with Mesh(model, ((),)) as running:
        yield running


def run(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_grpc_generate_prints_the_references_tokens(mesh: Mesh, model: Path):
    done = run("grpc_generate.py", "--attention", mesh.attention.address, "--max-tokens", "9")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    tokens = [int(token_id) for line in lines for token_id in line.split()]
    expected = ReferenceModel(Checkpoint.open(model)).greedy([5, 6, 7], 9, frozenset({2}))
    assert tokens == expected
    assert re.fullmatch(rf"FINISH_REASON_\w+: 3 \+ {len(tokens)} tokens", last)


def test_grpc_execute_prints_the_references_sums(mesh: Mesh, model: Path):
    checkpoint = Checkpoint.open(model)
    done = run(
        "grpc_execute.py",
        "--pool",
        mesh.pools[0].address,
        "--layer",
        "1",
        "--experts",
        "1,6",
        "--hidden-size",
        str(HIDDEN_SIZE),
        "--checkpoint-id",
        ensure_manifest(checkpoint).checkpoint_id,
    )
    assert done.returncode == 0, done.stderr
    rows = np.random.default_rng(0).standard_normal((2, HIDDEN_SIZE), np.float32)
    ids, weights = torch.tensor([[1, 6]] * 2), torch.full((2, 2), 0.5)
    sums = run_experts(
        torch.from_numpy(rows), ids, weights, load_experts(checkpoint, 1, torch.float32)
    )
    norms = re.search(r"row norms \[([\d. ]+)\]", done.stdout)
    assert norms is not None, done.stdout
    got = torch.tensor([float(part) for part in norms[1].split()])
    torch.testing.assert_close(got, sums.norm(dim=1), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--checkpoint-id", "0" * 64), "FAILED_PRECONDITION"),
        (("--experts", "99"), "ERROR_CODE_INVALID_ARGUMENT"),
    ],
)
def test_grpc_execute_says_why_it_failed(mesh: Mesh, flags, words):
    size = ("--hidden-size", str(HIDDEN_SIZE))
    done = run("grpc_execute.py", "--pool", mesh.pools[0].address, *size, *flags)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["grpc_generate.py", "grpc_execute.py"])
def test_an_example_needs_the_stubs_only(name: str):
    tree = ast.parse((EXAMPLES / name).read_text())
    used = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    used |= {
        node.module.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert used - set(sys.stdlib_module_names) <= {"grpc", "numpy", "protos"}
