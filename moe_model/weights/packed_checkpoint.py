"""How does a service start from packed weights? From a folder of panels, mapped, not copied.

`expertmesh model quantise` writes such a folder (moe_model/weights/pack_checkpoint.py):

    config.json, expertmesh_manifest.json   the source's: the checkpoint_id stays the same
    expertmesh_packed.json                  formats, checkpoint_id, digests of pieces and the rest
    packed-layer-0000.safetensors           experts.E.gate_up, experts.E.down: panels, uint8
    packed-attention.safetensors            linears, routing, head as panels; the rest as stored

Panels start at multiples of 64 bytes, as the kernels need them (moe_model/kernels/cpu/formats.py).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.families.family import TensorSpec
from moe_model.families.known import load_config, tensor_names
from moe_model.formats import PANEL
from moe_model.kernels.cpu.experts import PanelExperts
from moe_model.kernels.cpu.formats import weight_format
from moe_model.kernels.cpu.packed import PackedMatrix, TakesExperts, TakesLinears
from moe_model.maths.layer import LayerWeights
from moe_model.maths.linear import LinearWeight
from moe_model.maths.linears import Linears
from moe_model.quant import all_finite
from moe_model.weights.manifest import MANIFEST_NAME, Manifest, Progress, load_manifest
from moe_model.weights.packed_header import PACKED_NAME, read_header
from moe_model.weights.safetensors_file import SafetensorsFile, TensorEntry

ATTENTION_SHARD = "packed-attention.safetensors"


@dataclass(frozen=True, kw_only=True)
class Panels:
    """A packed matrix of a shard."""

    name: str
    format: str  # a name of moe_model/formats.py
    num_outputs: int
    num_inputs: int

    @property
    def size_bytes(self) -> int:
        return weight_format(self.format).size_bytes(self.num_outputs, self.num_inputs)


def shard_of_layer(layer_idx: int) -> str:
    return f"packed-layer-{layer_idx:04d}.safetensors"


def expert_panels(config: ModelConfig, format: str, expert_id: int) -> tuple[Panels, Panels]:
    """Gate and up with alternating panels, and down."""
    d, f = config.hidden_size, config.expert_size
    both, prefix = 2 * -(-f // PANEL) * PANEL, f"experts.{expert_id}."
    return (
        Panels(name=prefix + "gate_up", format=format, num_outputs=both, num_inputs=d),
        Panels(name=prefix + "down", format=format, num_outputs=d, num_inputs=f),
    )


def layer_panels(config: ModelConfig, format: str, layer_idx: int) -> dict[str, Panels]:
    """A layer's linears: qkv, o, and the routing in float32."""
    d, q, kv = config.hidden_size, config.query_size, config.kv_size
    prefix = f"layers.{layer_idx}."
    shapes = {"qkv": (format, q + 2 * kv, d), "o": (format, d, q)}
    shapes["routing"] = ("f32", config.num_experts, d)
    return {
        key: Panels(name=prefix + key, format=fmt, num_outputs=outputs, num_inputs=inputs)
        for key, (fmt, outputs, inputs) in shapes.items()
    }


def head_panels(config: ModelConfig, format: str) -> Panels:
    return Panels(
        name="lm_head", format=format, num_outputs=config.vocab_size, num_inputs=config.hidden_size
    )


def plain_specs(config: ModelConfig) -> list[TensorSpec]:
    """What stays as the checkpoint stores it: norms, biases, the embedding."""
    names = tensor_names(config)
    outer = names.outer()
    specs = [outer["embedding"], outer["final_norm"]]
    for layer_idx in range(config.num_layers):
        layer = names.layer(layer_idx)
        specs += [spec for key, spec in layer.items() if key not in ("q", "k", "v", "o", "routing")]
    return specs


def digest(file: SafetensorsFile, names: Iterable[str]) -> str:
    """SHA-256 over names, dtypes, sizes and bytes of tensors, hex."""
    found = hashlib.sha256()
    for name in names:
        entry = file.entries[name]
        found.update(f"{name}|{entry.dtype}|{entry.end - entry.start}|".encode())
        found.update(file.raw(name))
    return found.hexdigest()


class PackedCheckpoint:
    """An open folder of packed weights. Methods raise ValueError naming file and tensor."""

    def __init__(self, folder: Path):
        """Open `folder`; reads no weights."""
        self.folder = Path(folder)
        header = read_header(self.folder)
        self.config = load_config(self.folder)
        self._names = tensor_names(self.config)
        self.manifest: Manifest = load_manifest(self.folder / MANIFEST_NAME, self.config)
        if header.checkpoint_id != self.manifest.checkpoint_id:
            raise ValueError(
                f"{self.folder / PACKED_NAME}: not made from the checkpoint of {MANIFEST_NAME}"
            )
        self.format, self.linear_format = header.format, header.linear_format
        self._digests = header.digests
        self._files: dict[str, SafetensorsFile] = {}

    def holds_expert(self, layer_idx: int, expert_id: int) -> bool:
        return f"{layer_idx}.{expert_id}" in self._digests

    @property
    def holds_attention(self) -> bool:
        return "attention" in self._digests

    def require_experts(self) -> None:
        """Raises ValueError when experts are missing, naming the first."""
        config = self.config
        missing = [
            (layer_idx, expert_id)
            for layer_idx in range(config.num_layers)
            for expert_id in range(config.num_experts)
            if not self.holds_expert(layer_idx, expert_id)
        ]
        if missing:
            raise ValueError(
                f"{self.folder}: layer {missing[0][0]} expert {missing[0][1]} is missing "
                f"({len(missing)} such pieces): packed from a part of the checkpoint"
            )

    def expert(self, layer_idx: int, expert_id: int) -> tuple[PackedMatrix, PackedMatrix]:
        """Gate and up with alternating panels, and down, for `KernelExperts.put_packed`."""
        file = self._shard(shard_of_layer(layer_idx))
        gate_up, down = expert_panels(self.config, self.format, expert_id)
        return _mapped(file, gate_up), _mapped(file, down)

    def read_ahead(self, layer_idx: int, expert_id: int) -> None:
        """Have a piece read that is needed soon."""
        file = self._shard(shard_of_layer(layer_idx))
        for panels in expert_panels(self.config, self.format, expert_id):
            file.read_ahead(panels.name)

    def verify_expert(self, layer_idx: int, expert_id: int) -> None:
        """Hash a piece. Raises ValueError when it is not what was written."""
        names = [panels.name for panels in expert_panels(self.config, self.format, expert_id)]
        self._verify(f"{layer_idx}.{expert_id}", shard_of_layer(layer_idx), names)

    def verify_attention(self) -> None:
        """Hash all but the experts. Raises ValueError when they are missing or changed."""
        if not self.holds_attention:
            raise ValueError(
                f"{self.folder}: holds experts only: packed from a part without the attention side"
            )
        self._verify("attention", ATTENTION_SHARD, attention_names(self.config))

    def put_expert(self, held: TakesExperts, slot: int, layer_idx: int, expert_id: int) -> None:
        """Fill a slot: with the mapped panels themselves, or laid out for another device."""
        file = self._shard(shard_of_layer(layer_idx))
        try:
            held.put_panels(slot, *self.expert(layer_idx, expert_id))
        except ValueError as error:
            raise ValueError(f"{file.path}: expert {expert_id}: {error}") from None
        if not isinstance(held, PanelExperts):  # copied: the mapped pages are of no more use
            for panels in expert_panels(self.config, self.format, expert_id):
                file.drop_cache(panels.name)

    def layer(self, layer_idx: int, linears: Linears) -> LayerWeights:
        """A layer without its experts; norms in `linears`' dtype, matrices mapped as they are, or
        laid out for another device."""
        dtype = linears.dtype
        file, specs = self._shard(ATTENTION_SHARD), self._names.layer(layer_idx)
        panels, config = layer_panels(self.config, self.linear_format, layer_idx), self.config

        def plain(key: str, as_dtype: torch.dtype) -> Tensor | None:
            return _plain(file, specs[key], as_dtype) if key in specs else None

        return LayerWeights(
            input_norm_D=_plain(file, specs["input_norm"], dtype),
            qkv_AD=_linear(
                file, panels["qkv"], linears, [config.query_size, config.kv_size, config.kv_size]
            ),
            q_norm=plain("q_norm", dtype),
            k_norm=plain("k_norm", dtype),
            o_DA=_linear(file, panels["o"], linears),
            post_norm_D=_plain(file, specs["post_norm"], dtype),
            routing_ED=_linear(file, panels["routing"], linears),
            bias_E=plain("bias", torch.float32),
        )

    def outer(self, key: str, dtype: torch.dtype) -> Tensor:
        """`embedding` [V, D] or `final_norm` [D]."""
        return _plain(self._shard(ATTENTION_SHARD), self._names.outer()[key], dtype)

    def lm_head(self, linears: Linears) -> LinearWeight:
        """As the linears of `layer`."""
        panels = head_panels(self.config, self.linear_format)
        return _linear(self._shard(ATTENTION_SHARD), panels, linears)

    def _shard(self, name: str) -> SafetensorsFile:
        if name not in self._files:
            self._files[name] = SafetensorsFile(self.folder / name)
        return self._files[name]

    def _verify(self, key: str, shard: str, names: Iterable[str]) -> None:
        file = self._shard(shard)
        for name in names:
            _entry(file, name)
        if digest(file, names) != self._digests.get(key):
            raise ValueError(f"{file.path}: {key} differs from {PACKED_NAME}: a damaged file")


def verify_packed(folder: Path, progress: Progress | None = None) -> Manifest:
    """Hash all that a folder holds. Raises ValueError naming the first file that is wrong."""
    packed = PackedCheckpoint(folder)
    if packed.holds_attention:
        packed.verify_attention()
    config = packed.config
    for layer_idx in range(config.num_layers):
        for expert_id in range(config.num_experts):
            if packed.holds_expert(layer_idx, expert_id):
                packed.verify_expert(layer_idx, expert_id)
        if progress:
            progress(layer_idx + 1, config.num_layers)
    return packed.manifest


def attention_names(config: ModelConfig) -> list[str]:
    """Tensors of the attention shard, panels first."""
    names = [
        panels.name
        for layer_idx in range(config.num_layers)
        for panels in layer_panels(config, "bf16", layer_idx).values()
    ]
    return [*names, "lm_head", *(spec.name for spec in plain_specs(config))]


def _entry(file: SafetensorsFile, name: str) -> TensorEntry:
    if name not in file.entries:
        raise ValueError(f"{file.path}: tensor {name} is missing")
    return file.entries[name]


def _mapped(file: SafetensorsFile, panels: Panels) -> PackedMatrix:
    entry = _entry(file, panels.name)
    if entry.dtype != "U8" or entry.shape != (panels.size_bytes,):
        raise ValueError(
            f"{file.path}: tensor {panels.name}: {entry.dtype} {list(entry.shape)}, "
            f"expected U8 [{panels.size_bytes}]"
        )
    data = file.tensor(panels.name)
    return PackedMatrix(panels.format, panels.num_outputs, panels.num_inputs, data)


def _linear(
    file: SafetensorsFile, panels: Panels, linears: Linears, sizes: Sequence[int] = ()
) -> LinearWeight:
    """`sizes`: outputs of its parts, if it has several."""
    mapped = _mapped(file, panels)
    if not isinstance(linears, TakesLinears):
        return mapped
    try:
        return linears.from_panels(mapped, sizes or [panels.num_outputs])
    except ValueError as error:
        raise ValueError(f"{file.path}: tensor {panels.name}: {error}") from None


def _plain(file: SafetensorsFile, spec: TensorSpec, dtype: torch.dtype) -> Tensor:
    entry = _entry(file, spec.name)
    stored = file.tensor(spec.name)
    if entry.shape != spec.shape or not stored.is_floating_point() or not all_finite(stored):
        raise ValueError(
            f"{file.path}: tensor {spec.name}: expected finite numbers, {list(spec.shape)}"
        )
    return stored.to(dtype, copy=True)
