"""In which formats are weights held, and how many bytes do they take? No torch.

A format's bytes count its scales and its padding: outputs come in panels of 32,
inputs in groups that share a scale (moe_model/kernels/cpu has the layouts).
"""

from dataclasses import dataclass

from moe_model.config import ModelConfig

PANEL = 32
"""Outputs that lie together."""


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """How a weight matrix is held."""

    bits: int  # of a weight
    group: int  # inputs that share a scale; their number is padded to a multiple
    scale_bytes: int  # of a group of one output
    panel: int = PANEL

    def matrix_bytes(self, num_outputs: int, num_inputs: int) -> int:
        """Bytes of one matrix."""
        outputs = -(-num_outputs // self.panel) * self.panel
        groups = -(-num_inputs // self.group)
        return outputs * groups * (self.group * self.bits // 8 + self.scale_bytes)


FORMATS = {
    "float32": WeightFormat(bits=32, group=1, scale_bytes=0, panel=1),
    "bfloat16": WeightFormat(bits=16, group=2, scale_bytes=0),
    "fp8": WeightFormat(bits=8, group=128, scale_bytes=4),
    "int8": WeightFormat(bits=8, group=128, scale_bytes=4),
    "int4": WeightFormat(bits=4, group=32, scale_bytes=2),
}
CHOICES = ("auto", *FORMATS)
"""What --expert-dtype and --linear-dtype take."""


def choose_format(flag: str, name: str, compute_dtype: str, device: str = "cpu") -> str:
    """The format for flag `name`; auto is the compute dtype. Raises ValueError naming the flag."""
    if flag in ("auto", compute_dtype):
        return compute_dtype
    if device != "cpu":
        raise ValueError(
            f"{name} {flag} is for CPUs; on {device} it can be auto or {compute_dtype}"
        )
    if (flag == "float32") != (compute_dtype == "float32"):
        other = "float32" if flag == "float32" else "bfloat16"
        raise ValueError(
            f"{name} {flag} computes in {other}, but the compute dtype is {compute_dtype}: "
            f"add --dtype {other} (to every service) or choose another {name}"
        )
    return flag


def piece_bytes(config: ModelConfig, weight_format: str) -> int:
    """Bytes of one (layer, expert) as held."""
    held = FORMATS[weight_format]
    d, f = config.hidden_size, config.expert_size
    return 2 * held.matrix_bytes(f, d) + held.matrix_bytes(d, f)


def attention_bytes(config: ModelConfig, compute_dtype: str, linear_format: str) -> int:
    """Bytes of everything but the experts: the linears and the head in their own format."""
    d, q, kv = config.hidden_size, config.query_size, config.kv_size
    shapes = [(q + 2 * kv, d), (d, q)] * config.num_layers + [(config.vocab_size, d)]
    rest = config.attention_params - sum(rows * columns for rows, columns in shapes)
    linears = sum(FORMATS[linear_format].matrix_bytes(*shape) for shape in shapes)
    return linears + rest * FORMATS[compute_dtype].bits // 8
