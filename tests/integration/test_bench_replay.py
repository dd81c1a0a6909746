"""Real processes: routing of the demonstration model, recorded and replayed against its pools."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from expertmesh.cli import app
from expertmesh.loadgen.replay import draw
from expertmesh.plan import demo_model_dir
from tests.integration.mesh import Mesh
from tests.integration.test_pool_failure import Request


def command(*arguments: object) -> dict | str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


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
