"""How are a checkpoint's text files read, given that they may be damaged or hostile?

Every failure is a one-line `ValueError` that begins with the file's path.
"""

import json
from pathlib import Path
from typing import Any

MAX_CONFIG_BYTES = 4 * 1024 * 1024


def read_text(path: Path, limit_bytes: int) -> str:
    """The file's text; refuses what is missing, larger than `limit_bytes` or not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(data) > limit_bytes:
        raise ValueError(f"{path}: larger than the allowed {limit_bytes} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 (byte {error.start})") from None


def read_json(path: Path, *, limit_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The file's JSON, which must be an object."""
    text = read_text(path, limit_bytes)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object, holds {type(value).__name__}")
    return value
