"""Which formats are weights held in, on which devices, and how many bytes do they take? No torch.

One table and one set of names, from the flags to the kernels. Sizes in bytes include scales and
padding: outputs come in panels of 32, inputs in groups that share a scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moe_model.config import ModelConfig

PANEL = 32
"""Outputs stored side by side."""


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """How a weight matrix is held."""

    name: str
    bits: int  # per weight
    group: int  # inputs that share a scale; inputs are padded to a multiple of it
    scale_bytes: int = 0  # per group of one output
    panel: int = PANEL
    scale_outputs: int = 1  # outputs that share a scale
    devices: tuple[str, ...] = ()  # kinds of device with a backend for it; empty: all

    @property
    def group_bytes(self) -> int:
        """Bytes of one group of inputs of one panel."""
        return self.panel * (self.group * self.bits // 8 + self.scale_bytes)

    def padded(self, num_inputs: int) -> int:
        return -(-num_inputs // self.group) * self.group

    def panel_bytes(self, num_inputs: int) -> int:
        return self.padded(num_inputs) // self.group * self.group_bytes

    def size_bytes(self, num_outputs: int, num_inputs: int) -> int:
        """Bytes of a whole matrix."""
        outputs, inputs = -(-num_outputs // self.panel) * self.panel, self.padded(num_inputs)
        scales = inputs // self.group * -(-outputs // self.scale_outputs)
        return outputs * inputs * self.bits // 8 + scales * self.scale_bytes


FORMATS = {
    made.name: made
    for made in (
        WeightFormat(name="f32", bits=32, group=1, panel=1),
        WeightFormat(name="bf16", bits=16, group=2),
        WeightFormat(name="fp8", bits=8, group=128, scale_bytes=4, devices=("cpu", "cuda")),
        WeightFormat(name="int8", bits=8, group=128, scale_bytes=4, devices=("cpu",)),
        WeightFormat(name="int4", bits=4, group=32, scale_bytes=2, devices=("cpu", "cuda")),
        WeightFormat(name="int4_g128", bits=4, group=128, scale_bytes=2, devices=("cpu", "cuda")),
    )
}
ON_GPU = {
    "bf16": WeightFormat(name="bf16", bits=16, group=128, panel=64),
    "fp8": WeightFormat(name="fp8", bits=8, group=128, panel=64, scale_bytes=4, scale_outputs=128),
    "int4": WeightFormat(name="int4", bits=4, group=128, panel=64, scale_bytes=4 * 2),
    "int4_g128": WeightFormat(name="int4_g128", bits=4, group=128, panel=64, scale_bytes=2),
}
"""The formats that lie differently on GPUs (moe_model/kernels/cuda/codes.py): their sizes there."""
CHOICES = ("auto", *FORMATS)
DTYPE_CHOICES = ("auto", "f32", "bf16")
FLAG_CHOICES = {"dtype": DTYPE_CHOICES, "expert_dtype": CHOICES, "linear_dtype": CHOICES}
"""Allowed values of --dtype, --expert-dtype and --linear-dtype."""
_OLDER_NAMES = {"float32": "f32", "bfloat16": "bf16"}


def this_name(name: str) -> str:
    """The present name of a format that flags and files may call by an older one."""
    return _OLDER_NAMES.get(name, name)


def read_format(flag: str, name: str, choices: Sequence[str] = CHOICES) -> str:
    """The format that a flag names. Raises ValueError naming the flag."""
    if this_name(name) not in choices:
        raise ValueError(f"{flag} must be one of {', '.join(choices)}, got {name!r}")
    return this_name(name)


def read_flags(config: object) -> dict[str, Any]:
    """The formats that a config's flags name. Raises ValueError naming the flag."""
    return {
        name: read_format("--" + name.replace("_", "-"), getattr(config, name), choices)
        for name, choices in FLAG_CHOICES.items()
        if hasattr(config, name)
    }


def choose_format(flag: str, name: str, compute_dtype: str, device: str = "cpu") -> str:
    """The format for flag `name`; auto is the compute dtype. Raises ValueError naming the flag."""
    if flag in ("auto", compute_dtype):
        return compute_dtype
    devices = FORMATS[flag].devices
    if devices and device not in devices:
        raise ValueError(
            f"{name} {flag} is held on {' and '.join(devices)}; on {device} it can be auto or "
            f"{compute_dtype}"
        )
    if (flag == "f32") != (compute_dtype == "f32"):
        other = "f32" if flag == "f32" else "bf16"
        raise ValueError(
            f"{name} {flag} computes in {other}, but the compute dtype is {compute_dtype}: "
            f"add --dtype {other} (to every service) or choose another {name}"
        )
    return flag


def matrix_bytes(weight_format: str, device: str, num_outputs: int, num_inputs: int) -> int:
    """Bytes of a matrix as held on a kind of device, or on one: cpu, cuda, cuda:1."""
    on_gpu = device.startswith("cuda") and weight_format in ON_GPU
    held = (ON_GPU if on_gpu else FORMATS)[weight_format]
    return held.size_bytes(num_outputs, num_inputs)


def piece_bytes(config: ModelConfig, weight_format: str, device: str = "cpu") -> int:
    """Bytes of one (layer, expert) in this format."""
    d, f = config.hidden_size, config.expert_size
    up = matrix_bytes(weight_format, device, f, d)
    return 2 * up + matrix_bytes(weight_format, device, d, f)


def attention_layer_bytes(config: ModelConfig, linear_format: str, device: str = "cpu") -> int:
    """Bytes of a layer's linears, and of its routing matrix, which is float32."""
    d, q, kv = config.hidden_size, config.query_size, config.kv_size
    linears = sum(
        matrix_bytes(linear_format, device, *shape) for shape in ((q + 2 * kv, d), (d, q))
    )
    return linears + config.num_experts * d * 4


def attention_bytes(
    config: ModelConfig, compute_dtype: str, linear_format: str, device: str = "cpu"
) -> int:
    """Bytes of everything but the experts; the linears and the head have their own format."""
    d, q, kv = config.hidden_size, config.query_size, config.kv_size
    layer_params = d * (q + 2 * kv) + d * q + config.num_experts * d
    head_params = config.vocab_size * d
    rest = config.attention_params - config.num_layers * layer_params - head_params
    return (
        config.num_layers * attention_layer_bytes(config, linear_format, device)
        + matrix_bytes(linear_format, device, config.vocab_size, d)
        + rest * FORMATS[compute_dtype].bits // 8
    )


def kv_position_bytes(config: ModelConfig, kv_dtype: str, compute_dtype: str = "bf16") -> int:
    """Bytes of keys and values of one position over all layers, for a --kv-dtype."""
    if kv_dtype == "int8":  # a float32 scale for each head
        return 2 * config.num_layers * (config.kv_size + 4 * config.num_kv_heads)
    held = compute_dtype if kv_dtype == "auto" else kv_dtype
    return config.kv_bytes_per_token(FORMATS[held].bits // 8)
