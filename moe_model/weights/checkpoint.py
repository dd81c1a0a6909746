"""How do weights come off the disk? A checkpoint folder, mapped and checked.

`Checkpoint.open` checks the index, every shard's header and the completeness of
the tensor table without reading weights. `layer`, `outer` and `expert` load just
what is named, dequantised into the compute dtype; a pool never touches a piece
it was not asked to hold.
"""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.families.family import TensorSpec
from moe_model.families.known import load_config, tensor_names
from moe_model.json_files import read_json
from moe_model.maths.layer import LayerWeights
from moe_model.maths.linear import LinearWeight
from moe_model.maths.linears import Linears
from moe_model.quant import StoredExpert, StoredMatrix, all_finite, has_nan_codes, scale_shape
from moe_model.weights.layer_weights import layer_weights
from moe_model.weights.packed_header import is_packed
from moe_model.weights.safetensors_file import SafetensorsFile

log = logging.getLogger(__name__)

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_INDEX_BYTES = 64 * 1024 * 1024
_FLOAT_DTYPES = ("F32", "F16", "BF16")


class Checkpoint:
    """An open checkpoint. Loading methods raise ValueError naming file and tensor."""

    def __init__(self, folder: Path, config: ModelConfig, files: dict[str, SafetensorsFile]):
        """`files`: tensor name -> the shard that holds it. Use `open`."""
        self.folder = folder
        self.config = config
        self.names = tensor_names(config)
        self._files = files

    @classmethod
    def open(cls, folder: Path, *, partial: bool = False) -> "Checkpoint":
        """Map `folder` and check it. `partial`: pieces and shards may be missing (pool hosts)."""
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"{folder}: not a folder with a checkpoint")
        if is_packed(folder):
            raise ValueError(
                f"{folder}: holds packed weights; give the checkpoint they were made from"
            )
        config = load_config(folder)
        files = _open_shards(folder, partial)
        checkpoint = cls(folder, config, files)
        checkpoint._check_table(partial)
        return checkpoint

    @property
    def size_bytes(self) -> int:
        """Bytes of all shards that are there."""
        return sum(shard.path.stat().st_size for shard in set(self._files.values()))

    def holds(self, spec: TensorSpec) -> bool:
        """Whether the tensor (and its scale, when stored in FP8) is there."""
        file = self._files.get(spec.name)
        if file is None:
            return False
        is_fp8 = file.entries[spec.name].dtype == "F8_E4M3"
        return not is_fp8 or spec.scale_name in self._files

    def holds_expert(self, layer_idx: int, expert_id: int) -> bool:
        return all(map(self.holds, self.names.expert(layer_idx, expert_id).values()))

    def shard_of(self, name: str) -> SafetensorsFile | None:
        """The shard that holds a tensor, or None."""
        return self._files.get(name)

    def expert(self, layer_idx: int, expert_id: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """One piece: w13 [2F, D] (gate rows, then up rows) and w2 [D, F] in `dtype`."""
        return self.stored_expert(layer_idx, expert_id).to(dtype)

    def stored_expert(self, layer_idx: int, expert_id: int) -> StoredExpert:
        """One piece as the files have it."""
        specs = self.names.expert(layer_idx, expert_id)
        return StoredExpert(**{key: self.stored(spec) for key, spec in specs.items()})

    def layer(self, layer_idx: int, linears: Linears) -> LayerWeights:
        """A layer without its experts; norms in the compute dtype, routing stays float32."""
        specs = self.names.layer(layer_idx)
        return layer_weights(specs, lambda key: self.stored(specs[key]), linears)

    def outer(self, key: str, dtype: torch.dtype) -> Tensor:
        """`embedding` [V, D], `final_norm` [D] or `lm_head` [V, D]."""
        return self.stored(self.names.outer()[key]).to(dtype)

    def lm_head(self, linears: Linears) -> LinearWeight:
        """`lm_head` [V, D] as a linear."""
        return linears.make([self.stored(self.names.outer()["lm_head"])])

    def digest(self, specs: Iterable[TensorSpec]) -> str:
        """SHA-256 over names, dtypes, shapes and stored bytes of the given tensors, hex."""
        digest = hashlib.sha256()
        names = [name for spec in specs for name in (spec.name, spec.scale_name)]
        for name in sorted(name for name in names if name in self._files):
            file = self._files[name]
            entry = file.entries[name]
            digest.update(f"{name}|{entry.dtype}|{list(entry.shape)}|".encode())
            digest.update(file.raw(name))
        return digest.hexdigest()

    def read_ahead(self, specs: Iterable[TensorSpec]) -> None:
        """Have tensors read that are needed soon."""
        for spec in specs:
            for name in (spec.name, spec.scale_name):
                if name in self._files:
                    self._files[name].read_ahead(name)

    def release(self, specs: Iterable[TensorSpec]) -> None:
        """Drop the mapped pages of tensors that have been copied."""
        for spec in specs:
            if spec.name in self._files:
                self._files[spec.name].drop_cache(spec.name)

    def stored(self, spec: TensorSpec) -> StoredMatrix:
        """A tensor as the file has it, its values checked."""
        file = self._files.get(spec.name)
        if file is None:
            raise ValueError(f"{self.folder}: tensor {spec.name} is missing")
        quant = self.config.quant
        block = (quant.block_rows, quant.block_cols)
        stored = file.tensor(spec.name)
        where = f"{file.path}: tensor {spec.name}"
        if stored.dtype != torch.float8_e4m3fn:
            if not all_finite(stored):
                raise ValueError(f"{where}: values must be finite")
            return StoredMatrix(values=stored, scales=None, block=block, where=where)
        if has_nan_codes(stored):
            raise ValueError(f"{where}: holds FP8 NaN codes")
        if spec.scale_name not in self._files:
            raise ValueError(f"{where}: scale {spec.scale_name} is missing")
        scales = self._files[spec.scale_name].tensor(spec.scale_name)
        if not bool((torch.isfinite(scales) & (scales > 0)).all()):
            raise ValueError(
                f"{file.path}: tensor {spec.scale_name}: scales must be finite and > 0"
            )
        return StoredMatrix(values=stored, scales=scales, block=block, where=where)

    def _check_table(self, partial: bool) -> None:
        """Completeness, shapes and dtypes of everything the model needs; no weights are read."""
        known: set[str] = set()
        for _, spec in self.names.every():
            known.update((spec.name, spec.scale_name))
            if spec.name in self._files:
                self._check_tensor(spec, partial)
            elif not partial:
                raise ValueError(f"{self.folder}: tensor {spec.name} is missing")
        strangers = [n for n in self._files if n not in known and not self.names.is_ignored(n)]
        if strangers:
            raise ValueError(
                f"{self._files[strangers[0]].path}: tensor {strangers[0]} does not belong to this "
                f"model ({len(strangers)} such tensors)"
            )

    def _check_tensor(self, spec: TensorSpec, partial: bool) -> None:
        file = self._files[spec.name]
        entry = file.entries[spec.name]
        where = f"{file.path}: tensor {spec.name}"
        if entry.shape != spec.shape:
            raise ValueError(f"{where}: shape {list(entry.shape)}, expected {list(spec.shape)}")
        if entry.dtype in _FLOAT_DTYPES:
            return
        if entry.dtype != "F8_E4M3" or not spec.quantised or self.config.quant.method != "fp8":
            raise ValueError(f"{where}: dtype {entry.dtype} is not allowed here")
        scale_file = self._files.get(spec.scale_name)
        if scale_file is None and partial:
            return  # in a shard that is not here: `holds` says no
        if scale_file is None:
            raise ValueError(f"{where}: scale {spec.scale_name} is missing")
        scale = scale_file.entries[spec.scale_name]
        quant = self.config.quant
        rows, cols = spec.shape
        expected = scale_shape(rows, cols, quant.block_rows, quant.block_cols)
        if scale.shape != expected or scale.dtype != "F32":
            raise ValueError(
                f"{scale_file.path}: tensor {spec.scale_name}: {scale.dtype} {list(scale.shape)}, "
                f"expected F32 {list(expected)}"
            )


def _open_shards(folder: Path, partial: bool) -> dict[str, SafetensorsFile]:
    """tensor name -> open shard, as the index (or a single file) says."""
    index_path = folder / INDEX_NAME
    if not index_path.exists():
        single = SafetensorsFile(_inside(folder, SINGLE_NAME))
        return dict.fromkeys(single.entries, single)
    weight_map = read_json(index_path, limit_bytes=MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index_path}: weight_map is missing or empty")
    shards: dict[str, SafetensorsFile | None] = {}
    files: dict[str, SafetensorsFile] = {}
    for name, shard_name in weight_map.items():
        if not isinstance(shard_name, str) or not shard_name.isprintable():
            raise ValueError(f"{index_path}: weight_map[{name}] is not a file name")
        if shard_name not in shards:
            path = _inside(folder, shard_name)
            if partial and not path.exists():
                log.info("%s is not here: what it holds cannot be loaded", path)
                shards[shard_name] = None
            else:
                shards[shard_name] = SafetensorsFile(path)
        shard = shards[shard_name]
        if shard is None:
            continue
        if name not in shard.entries:
            raise ValueError(
                f"{shard.path}: tensor {name} is missing, but the index places it here"
            )
        files[name] = shard
    for shard in shards.values():
        unlisted = [name for name in shard.entries if files.get(name) is not shard] if shard else []
        if shard and unlisted:
            raise ValueError(f"{shard.path}: {INDEX_NAME} does not place tensor {unlisted[0]} here")
    return files


def _inside(folder: Path, name: str) -> Path:
    """`folder`/`name`, refused when it leads out of the folder (.., absolute, symlink)."""
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: shard {name!r} lies outside the checkpoint folder")
    return path
