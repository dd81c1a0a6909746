"""Loading a checkpoint never holds two copies: beyond its weights a pool needs about one piece."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moe_model.families.known import parse_config, tensor_names
from moe_model.families.minimax_m2.tiny_config import FP8_CONFIG, TINY
from moe_model.kernels.cpu import library
from moe_model.quant import quantise
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import ensure_manifest

EXPERTS, HIDDEN, EXPERT_SIZE = 20, 3072, 1536
NUM_WEIGHTS = 3 * HIDDEN * EXPERT_SIZE
"""Of a piece."""
SLACK_BYTES = 16 << 20
"""Allocators keep a varying share of freed memory."""

LOAD = """
import json, sys
from pathlib import Path
import torch
from expert_svc.weight_store import WeightStore
from moe_model.backends.choice import choose_backend
from moe_model.weights.open import open_weights
from rpc.mesh.pieces import Pieces

def status(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024

weights, manifest = open_weights(Path(sys.argv[1]), partial=False)
store = WeightStore(weights, manifest, choose_backend(torch.bfloat16), weight_format=sys.argv[2])
store.load(Pieces.grid((0,), (0,)))  # what is made once: the library, its threads
before, size_before = status("VmRSS"), store.size_bytes
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
store.load(store.available())
grown = store.size_bytes - size_before
print(json.dumps({
    "weights": grown,
    "peak": status("VmHWM") - before - grown,
    "left": status("VmRSS") - before - grown,
}))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A layer of real width in FP8 and in BF16; all experts have equal numbers, to save time."""
    raw = {
        **TINY,
        "num_hidden_layers": 1,
        "num_local_experts": EXPERTS,
        "hidden_size": HIDDEN,
        "intermediate_size": EXPERT_SIZE,
        "torch_dtype": "bfloat16",
    }
    shapes = (EXPERT_SIZE, HIDDEN), (HIDDEN, EXPERT_SIZE)
    weights = {shape: torch.randn(shape) * 0.02 for shape in shapes}
    coded = {shape: quantise(weight) for shape, weight in weights.items()}
    made = {}
    for kind in ("fp8", "bf16"):
        folder = made[kind] = tmp_path_factory.mktemp(kind)
        config = {**raw, "quantization_config": FP8_CONFIG} if kind == "fp8" else raw
        tensors = {}
        for _, spec in tensor_names(parse_config(config)).every():
            if kind == "bf16" or ".experts." not in spec.name:
                weight = weights.get(spec.shape, torch.ones(spec.shape))
                tensors[spec.name] = weight.to(torch.bfloat16, copy=True)
            else:
                codes, scales = coded[spec.shape]
                tensors |= {spec.name: codes.clone(), spec.scale_name: scales.clone()}
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
        ensure_manifest(Checkpoint.open(folder))
    return made


@pytest.mark.slow
@pytest.mark.skipif(library.load() is None, reason="torch's packing is the readable one")
@pytest.mark.parametrize(
    ("stored", "weight_format"),
    [("fp8", "bf16"), ("fp8", "fp8"), ("fp8", "int8"), ("fp8", "int4"), ("bf16", "fp8")],
)
def test_peak_memory_is_the_weights_and_one_piece(
    folders: dict[str, Path], stored: str, weight_format: str
):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folders[stored]), weight_format],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    mapped = NUM_WEIGHTS * (2 if stored == "bf16" else 1)  # of a piece, while it is converted
    assert found["weights"] > 4 * (mapped + SLACK_BYTES), "a copy would go unnoticed"
    assert found["peak"] < mapped + SLACK_BYTES, found
    assert found["left"] < SLACK_BYTES, found
