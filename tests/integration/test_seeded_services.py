"""Services without weights on a disk make equal ones from a seed; another seed is refused."""

import json
import urllib.request
from pathlib import Path

import pytest

from moe_model.reference import ReferenceModel
from moe_model.tiny import FIRST
from moe_model.weights.load_flag import Seeded
from moe_model.weights.seeded import SeededWeights
from tests.support.generate_call import generate
from tests.support.mesh import Mesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LOAD = Seeded(seed=5, skew=1.0)
FLAGS = ("--load", str(LOAD))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(FIRST.tiny_config(True)))
    return folder


def test_a_mesh_from_a_seed_is_the_reference_and_refuses_another_seed(model: Path) -> None:
    reference = ReferenceModel(SeededWeights(model, LOAD))
    stripes = (("--experts", "0-2,7", *FLAGS), ("--experts", "3-6", *FLAGS))
    prompt = [3, 17, 40]
    with Mesh(model, stripes, attention_flags=FLAGS) as mesh:
        assert any("the weights are random" in line for line in mesh.pools[0].lines)
        tokens, _ = generate(mesh.attention.address, prompt, 8)
        assert tokens == reference.greedy(prompt, 8, frozenset({2}))
        stranger = mesh.start_pool("--load", "random:6,skew=1", "--pool-id", "stranger")
        assert stranger.process.wait(60) == 1
        stranger.wait_for("refused this member: checkpoint_id random-.* is not the mesh's random-")
        with urllib.request.urlopen(f"http://{mesh.attention.ops_address}/metrics") as answer:
            assert 'checkpoint_id="random-' in answer.read().decode()
