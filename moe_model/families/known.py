"""Which family does a config.json belong to? The one table. No torch."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from moe_model.config import ModelConfig
from moe_model.families.family import ChatFormat, Family, TensorNames
from moe_model.families.minimax_m2.family import MINIMAX_M2
from moe_model.json_files import read_json

log = logging.getLogger(__name__)

FAMILIES: dict[str, Family] = {"minimax_m2": MINIMAX_M2, "minimax": MINIMAX_M2}
"""By model_type."""


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
    return FAMILIES[model_type].parse_config(raw)


def family_of(config: ModelConfig) -> Family:
    """The family that the config was read by."""
    return FAMILIES[config.model_type]


def tensor_names(config: ModelConfig) -> TensorNames:
    """What a checkpoint of this config holds."""
    return family_of(config).tensor_names(config)


def chat_format_with(markers: Collection[str]) -> ChatFormat:
    """For a client that knows only a server's markers: the first format with all of them.

    Servers that tell no markers are older than the second family: theirs is the first.
    """
    formats = [family.chat_format for family in FAMILIES.values()]
    return next((one for one in formats if set(one.markers) <= set(markers)), formats[0])
