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
        return -(-num_outputs // self.panel) * self.panel_bytes(num_inputs)


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


def piece_bytes(config: ModelConfig, weight_format: str) -> int:
    """Bytes of one (layer, expert) in this format."""
    held = FORMATS[weight_format]
    d, f = config.hidden_size, config.expert_size
    return 2 * held.size_bytes(f, d) + held.size_bytes(d, f)


def attention_bytes(config: ModelConfig, compute_dtype: str, linear_format: str) -> int:
    """Bytes of everything but the experts; the linears and the head have their own format."""
    d, q, kv = config.hidden_size, config.query_size, config.kv_size
    shapes = [(q + 2 * kv, d), (d, q)] * config.num_layers + [(config.vocab_size, d)]
    rest = config.attention_params - sum(rows * columns for rows, columns in shapes)
    linears = sum(FORMATS[linear_format].size_bytes(*shape) for shape in shapes)
    return linears + rest * FORMATS[compute_dtype].bits // 8
