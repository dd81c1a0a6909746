"""How is a checkpoint with only some tensors written? One shard per layer, from any source.

The bytes are copied as stored, so a part has the digests of the whole and, with the manifest
beside it, its checkpoint_id.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from moe_model.config import ModelConfig
from moe_model.families.family import TensorSpec
from moe_model.families.known import tensor_names
from moe_model.weights.checkpoint import INDEX_NAME, Checkpoint
from moe_model.weights.safetensors_file import (
    SafetensorsFile,
    TensorEntry,
    replace_file,
    write_shard,
)

MAX_READ_BYTES = 64 * 1024 * 1024
ATTENTION_SHARD = "attention.safetensors"
Buffer = bytes | memoryview


class Source(Protocol):
    """Where tensors come from."""

    def find(self, name: str) -> tuple[str, TensorEntry] | None:
        """The shard that holds a tensor and its place there, or None."""

    def read(self, shard: str, start: int, end: int) -> Buffer:
        """Bytes of a shard. Raises ValueError when they cannot be read."""


class LocalSource:
    """The tensors of an open checkpoint."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint
        self._maps: dict[str, memoryview] = {}

    def find(self, name: str) -> tuple[str, TensorEntry] | None:
        shard = self._checkpoint.shard_of(name)
        if shard is None:
            return None
        self._maps.setdefault(str(shard.path), shard.view())
        return str(shard.path), shard.entries[name]

    def read(self, shard: str, start: int, end: int) -> Buffer:
        return self._maps[shard][start:end]


def shard_of_layer(layer_idx: int) -> str:
    return f"experts-layer-{layer_idx:04d}.safetensors"


def wanted_shards(
    config: ModelConfig, experts: Mapping[int, Sequence[int]], *, attention: bool
) -> dict[str, list[TensorSpec]]:
    """File to write -> what belongs in it. `experts`: layer -> expert ids."""
    names = tensor_names(config)
    shards = {
        shard_of_layer(layer_idx): [
            spec for expert_id in ids for spec in names.expert(layer_idx, expert_id).values()
        ]
        for layer_idx, ids in experts.items()
        if ids
    }
    if attention:
        shards[ATTENTION_SHARD] = names.attention()
    return shards


def write_parts(
    folder: Path, source: Source, shards: Mapping[str, Sequence[TensorSpec]]
) -> Iterator[tuple[str, int]]:
    """Write shards one by one, yielding (file, its bytes), then the index.

    An existing shard with exactly these tensors is kept: it was renamed into place when complete,
    and its bytes are checked against the manifest when they are loaded.
    Raises ValueError naming a tensor that the source does not have.
    """
    weight_map: dict[str, str] = {}
    for file_name, specs in shards.items():
        found = _find_all(source, specs)
        weight_map.update(dict.fromkeys(found, file_name))
        path = folder / file_name
        if not path.exists() or SafetensorsFile(path).entries.keys() != found.keys():
            tensors = {
                key: (entry.dtype, entry.shape, entry.end - entry.start)
                for key, (_, entry) in found.items()
            }
            write_shard(path, tensors, _chunks(source, list(found.values())))
        yield file_name, path.stat().st_size
    index = {"metadata": {}, "weight_map": weight_map}
    replace_file(folder / INDEX_NAME, [json.dumps(index).encode()])


def _find_all(source: Source, specs: Sequence[TensorSpec]) -> dict[str, tuple[str, TensorEntry]]:
    """Each tensor, and its scale where it has one, in the order in which they are best read."""
    found: dict[str, tuple[str, TensorEntry]] = {}
    for spec in specs:
        tensor, scale = source.find(spec.name), source.find(spec.scale_name)
        if tensor is None:
            raise ValueError(f"tensor {spec.name} is not in the checkpoint")
        found[spec.name] = tensor
        if scale is not None:
            found[spec.scale_name] = scale
    return dict(sorted(found.items(), key=lambda item: (item[1][0], item[1][1].start)))


def _chunks(source: Source, places: Sequence[tuple[str, TensorEntry]]) -> Iterator[Buffer]:
    """The tensors' bytes; neighbours in the source are read together."""
    index = 0
    while index < len(places):
        shard, first = places[index]
        end = first.end
        index += 1
        while index < len(places):
            next_shard, entry = places[index]
            together = next_shard == shard and entry.start == end
            if not together or entry.end - first.start > MAX_READ_BYTES:
                break
            end = entry.end
            index += 1
        if end > first.start:
            yield source.read(shard, first.start, end)
