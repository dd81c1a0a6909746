"""Which family does a config.json belong to? The one table. No torch."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moe_model.config import ModelConfig, read_json
from moe_model.families.minimax_m2 import config_keys as minimax_m2

log = logging.getLogger(__name__)

FAMILIES: dict[str, Callable[[Mapping[str, Any]], ModelConfig]] = {
    "minimax_m2": minimax_m2.parse_config,
    "minimax": minimax_m2.parse_config,
}
"""model_type -> who reads the rest of the config."""


def load_config(folder: Path) -> ModelConfig:
    """Read `folder`/config.json. Raises ValueError with the reason when it cannot be served."""
    return parse_config(read_json(Path(folder) / "config.json"))


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """The checked config from config.json's content. Unknown keys are ignored."""
    if "auto_map" in raw:
        log.warning("config.json: auto_map is ignored; code from a checkpoint is never run")
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(f"config.json: model_type {model_type!r} is not one of {tuple(FAMILIES)}")
    return FAMILIES[model_type](raw)
