"""A random checkpoint with the tokenizer of the model in the box."""

import json
import shutil
from pathlib import Path

from moe_model.tiny import write_tiny


def write_demo_like_checkpoint(folder: Path) -> None:
    """Seeded random weights with the bundled model's tokenizer and template."""
    from expertmesh.cluster.cluster_plan import demo_model_dir

    demo = demo_model_dir()
    raw = json.loads((demo / "config.json").read_text())
    write_tiny(
        folder,
        vocab_size=raw["vocab_size"],
        eos_token_id=raw["eos_token_id"],
        num_hidden_layers=4,
        max_position_embeddings=2048,
    )
    for path in demo.iterdir():
        if path.suffix in (".json", ".jinja") and path.name not in (
            "config.json",
            "model.safetensors.index.json",
            "expertmesh_manifest.json",
        ):
            shutil.copy(path, folder)
