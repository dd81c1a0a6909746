"""Real processes: routing of the demonstration model, recorded and replayed against its pools."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from expertmesh.cli import app
from expertmesh.cluster.cluster_plan import demo_model_dir
from expertmesh.loadgen.routing import draw, read_steps
from moe_model.families.known import load_config
from tests.support.attention_svc.long_requests import Request
from tests.support.mesh import Mesh

# A prompt that the prefix cache holds but for one token would be computed like a generated token.
UNSEEN_PROMPT = [9, 10, 11, 12]


def command(*arguments: object) -> dict | str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def counted(router: tuple[str, str], total: int) -> np.ndarray:
    """[layer, expert] once the attention service has reported so many."""
    deadline_s = time.monotonic() + 30
    while True:
        tokens = np.array(command("experts", "show", *router, "--json")["tokens"])
        if tokens.sum() >= total or time.monotonic() > deadline_s:
            return tokens


@pytest.mark.slow
def test_a_recording_of_the_demonstration_model_is_replayed(tmp_path: Path):
    flags = ("--replicas", "1", "--striping", "expert")
    state = tmp_path / "epoch"
    with Mesh(demo_model_dir(), ((), ()), router_flags=flags, state=state) as mesh:
        router = ("--router", mesh.router.address)
        Request(mesh.attention.address, max_tokens=40).wait(60)
        tokens = []
        while not tokens:
            tokens = command("experts", "show", *router, "--json")["tokens"]
        recording = tmp_path / "load.json"
        recording.write_text(json.dumps({"seconds": 1.0, "tokens": tokens}))
        few = ("--streams", 2, "--steps", 3, "--rows", 4)
        result = command("bench", "replay", recording, *router, *few, "--json")
        assert result["failed_calls"] == 0
        assert result["steps"] == 6
        assert len(result["pools"]) == 2
        assert result["imbalance"] >= 1
        assert 0 < result["call"]["p50_ms"] <= result["call"]["p99_ms"] <= result["step"]["max_ms"]
        assert "x the mean" in command("bench", "replay", recording, *router, *few)
        exact = tmp_path / "load.safetensors"
        config = load_config(demo_model_dir())
        before = counted(router, (4 + 39) * config.num_layers * config.top_k)
        asking = threading.Thread(
            target=lambda: Request(mesh.attention.address, 30, UNSEEN_PROMPT).wait(60)
        )
        threading.Timer(1.0, asking.start).start()
        shown = command("experts", "record", "--exact", "--out", exact, "--seconds", 6, *router)
        assert "were lost" not in shown
        asking.join(60)
        steps = read_steps(exact, config).recorded
        assert [step.is_decode for step in steps] == [False] + [True] * 29
        routed = np.zeros_like(before)
        for step in steps:
            for layer, ids_TK in enumerate(step.ids_LTK):
                np.add.at(routed[layer], ids_TK.numpy().ravel(), 1)
        after = counted(router, before.sum() + routed.sum())
        assert (after - before == routed).all()
        result = command("bench", "replay", exact, *router, "--streams", 1, "--json")
        assert result["failed_calls"] == 0
        assert (result["steps"], result["rows"]) == (30, sum(s.ids_LTK.shape[1] for s in steps))
        for content, said in (
            ("{}", "not a recording"),
            ('{"tokens": [[1]]}', "expected counts of"),
        ):
            recording.write_text(content)
            bad = CliRunner().invoke(app, ["bench", "replay", str(recording), *router])
            assert said in str(bad.exception)


def test_experts_are_drawn_as_often_as_recorded_and_never_twice_in_a_row():
    generator = torch.Generator().manual_seed(1)
    ids_TK = draw([60, 20, 20, 0], 4000, 1, generator)
    shares = torch.bincount(ids_TK.ravel(), minlength=4) / 4000
    assert shares[3] == 0
    assert abs(shares[0] - 0.6) < 0.05
    pairs = draw([60, 20, 20, 0], 100, 3, generator)
    assert all(len(set(row)) == 3 for row in pairs.tolist())
