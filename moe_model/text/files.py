"""Which files of a checkpoint describe its text side, and how large may they be?"""

from pathlib import Path
from typing import Any

from moe_model.json_files import read_json

MAX_TOKENIZER_BYTES = 64 * 2**20  # M2's tokenizer.json is about 10 MB
MAX_TEMPLATE_BYTES = 2**20

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, or an empty mapping when the checkpoint has none."""
    path = folder / TOKENIZER_CONFIG_FILE
    return read_json(path) if path.exists() else {}
