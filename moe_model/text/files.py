"""How are a checkpoint's tokenizer files read, given that they may be damaged or hostile?

Every failure is a one-line `ValueError` that begins with the file's path.
"""

import json
from pathlib import Path
from typing import Any

from moe_model.config import MAX_CONFIG_BYTES

MAX_TOKENIZER_BYTES = 64 * 2**20  # M2's tokenizer.json is about 10 MB
MAX_TEMPLATE_BYTES = 2**20

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


def read_text(path: Path, max_bytes: int) -> str:
    """The file's text; refuses what is missing, larger than `max_bytes` or not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > max_bytes:
        raise ValueError(f"{path}: larger than the allowed {max_bytes} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 (byte {error.start})") from error


def read_json_object(path: Path, max_bytes: int) -> dict[str, Any]:
    """The file's JSON, which must be an object."""
    text = read_text(path, max_bytes)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object, holds {type(value).__name__}")
    return value


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, or an empty mapping when the checkpoint has none."""
    path = folder / TOKENIZER_CONFIG_FILE
    return read_json_object(path, MAX_CONFIG_BYTES) if path.exists() else {}
