"""In which formats are weights held, on which devices, and how many bytes do they take? No torch.

One table and one set of names, from the flags to the kernels. A format's bytes count its scales and
its padding: outputs come in panels of 32, inputs in groups that share a scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moe_model.config import ModelConfig

PANEL = 32
"""Outputs that lie together."""


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """How a weight matrix is held."""

    name: str
    bits: int  # of a weight
    group: int  # inputs that share a scale; their number is padded to a multiple
    scale_bytes: int = 0  # of a group of one output
    panel: int = PANEL
    devices: tuple[str, ...] = ()  # kinds of device with a backend that holds it; none: all

    @property
    def group_bytes(self) -> int:
        """Of one group of inputs of one panel."""
        return self.panel * (self.group * self.bits // 8 + self.scale_bytes)

    def padded(self, num_inputs: int) -> int:
        return -(-num_inputs // self.group) * self.group

    def panel_bytes(self, num_inputs: int) -> int:
        return self.padded(num_inputs) // self.group * self.group_bytes

    def size_bytes(self, num_outputs: int, num_inputs: int) -> int:
        """Of a whole matrix."""
        return -(-num_outputs // self.panel) * self.panel_bytes(num_inputs)


FORMATS = {
    made.name: made
    for made in (
        WeightFormat(name="f32", bits=32, group=1, panel=1),
        WeightFormat(name="bf16", bits=16, group=2),
        WeightFormat(name="fp8", bits=8, group=128, scale_bytes=4, devices=("cpu",)),
        WeightFormat(name="int8", bits=8, group=128, scale_bytes=4, devices=("cpu",)),
        WeightFormat(name="int4", bits=4, group=32, scale_bytes=2, devices=("cpu",)),
        WeightFormat(name="int4_g128", bits=4, group=128, scale_bytes=2, devices=("cpu",)),
    )
}
CHOICES = ("auto", *FORMATS)
DTYPE_CHOICES = ("auto", "f32", "bf16")
FLAG_CHOICES = {"dtype": DTYPE_CHOICES, "expert_dtype": CHOICES, "linear_dtype": CHOICES}
"""What --dtype, --expert-dtype and --linear-dtype take."""
_OLDER_NAMES = {"float32": "f32", "bfloat16": "bf16"}


def this_name(name: str) -> str:
    """A format's name where flags and files may have it as it was called before."""
    return _OLDER_NAMES.get(name, name)


def read_format(flag: str, name: str, choices: Sequence[str] = CHOICES) -> str:
    """What a flag names, by its name here. Raises ValueError naming the flag."""
    if this_name(name) not in choices:
        raise ValueError(f"{flag} must be one of {', '.join(choices)}, got {name!r}")
    return this_name(name)


def read_flags(config: object) -> dict[str, Any]:
    """A config's flags that name formats, by the names here. Raises ValueError naming the flag."""
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
    """Bytes of one (layer, expert) as held."""
    held = FORMATS[weight_format]
    d, f = config.hidden_size, config.expert_size
    return 2 * held.size_bytes(f, d) + held.size_bytes(d, f)


def attention_bytes(config: ModelConfig, compute_dtype: str, linear_format: str) -> int:
    """Bytes of everything but the experts: the linears and the head in their own format."""
    d, q, kv = config.hidden_size, config.query_size, config.kv_size
    shapes = [(q + 2 * kv, d), (d, q)] * config.num_layers + [(config.vocab_size, d)]
    rest = config.attention_params - sum(rows * columns for rows, columns in shapes)
    linears = sum(FORMATS[linear_format].size_bytes(*shape) for shape in shapes)
    return linears + rest * FORMATS[compute_dtype].bits // 8
