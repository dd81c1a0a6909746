"""bench/engine/gpu.py runs on the CPU with a small model, so that no run on a card fails for it."""

import json
import subprocess
import sys

import pytest

from tests.support.places import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_attention_and_a_pool_apart_are_compared_with_one_process() -> None:
    command = [sys.executable, "bench/engine/gpu.py", "--tiny", "--parts", "split,prefill"]
    done = subprocess.run(
        [*command, "--seconds", "0.1"], cwd=ROOT, capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for rows in ("1 rows", "32 rows"):
        assert found["split"][rows]["split tok_s"] > 0
        assert found["split"][rows]["in process tok_s"] > 0
    assert found["prefill"]["cached 7900 of 8000 ms"] > 0
