"""A tiny seeded random checkpoint with a real tokenizer and template."""

import shutil
from pathlib import Path

from expertmesh.cluster.cluster_plan import demo_model_dir
from moe_model.text.tokenizer import Tokenizer
from moe_model.tiny import write_tiny

EOS = 3066


def write_tiny_text_model(folder: Path, **overrides: object) -> Path:
    """M2's shape, tiny, with the bundled model's tokenizer, template and stop token."""
    source = demo_model_dir()
    vocab_size = Tokenizer.load(source).vocab_size
    write_tiny(folder, **{"vocab_size": vocab_size, "eos_token_id": EOS, "seed": 5, **overrides})
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    ):
        shutil.copy(source / name, folder / name)
    return folder
