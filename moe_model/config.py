"""What shape does a model have, and can it be served? No torch.

No model's numbers are hard-coded. Each family reads its own keys (moe_model/families).
"""

import math
from dataclasses import dataclass
from pathlib import Path

from moe_model.config_values import integer, number, token_ids
from moe_model.json_files import read_json
from protos.limits import MAX_EXPERTS, MAX_LAYERS

DTYPES = ("bfloat16", "float16", "float32")
_SIZES = (
    *("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim"),
    *("num_experts", "top_k", "expert_size", "max_position_embeddings"),
)
AUTO_FLOAT32_BYTES = 4 * 1024**3
"""Size in float32 of the largest model that is computed in float32 by default."""


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How linear weights are stored: `method` "none" (BF16, F32) or "fp8" (blocks with scales)."""

    method: str = "none"
    block_rows: int = 128
    block_cols: int = 128


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model. Letters: moe_model/shapes.py."""

    model_type: str  # as config.json has it; the family that reads it: families/known.py
    vocab_size: int  # V
    hidden_size: int  # D
    num_layers: int
    num_heads: int  # H
    num_kv_heads: int  # G
    head_dim: int  # P
    rotary_dim: int  # rotated part of each head, half-split pairs
    rope_theta: float
    rms_norm_eps: float
    num_experts: int  # E
    top_k: int  # K
    expert_size: int  # F
    use_qk_norm: bool
    use_routing_bias: bool
    max_position_embeddings: int
    eos_token_ids: tuple[int, ...]
    dtype: str = "bfloat16"
    quant: QuantConfig = QuantConfig()

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ValueError(
                    f"config.json: {name} must be at least 1, got {getattr(self, name)}"
                )
        for name, is_right, rule in (
            ("num_layers", self.num_layers <= MAX_LAYERS, f"at most {MAX_LAYERS}"),
            ("num_experts", self.num_experts <= MAX_EXPERTS, f"at most {MAX_EXPERTS}"),
            (
                "num_heads",
                self.num_heads % self.num_kv_heads == 0,
                f"a multiple of num_kv_heads ({self.num_kv_heads})",
            ),
            (
                "rotary_dim",
                self.rotary_dim % 2 == 0 and 0 < self.rotary_dim <= self.head_dim,
                f"even and in 2..head_dim ({self.head_dim})",
            ),
            (
                "top_k",
                self.top_k <= self.num_experts,
                f"at most num_experts ({self.num_experts})",
            ),
            ("rope_theta", 0 < self.rope_theta < math.inf, "positive and finite"),
            ("rms_norm_eps", 0 < self.rms_norm_eps < 1, "in (0, 1)"),
            ("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
        ):
            if not is_right:
                raise ValueError(f"config.json: {name} must be {rule}, got {getattr(self, name)!r}")
        for token_id in self.eos_token_ids:
            if not 0 <= token_id < self.vocab_size:
                raise ValueError(
                    f"config.json: eos_token_id {token_id} is outside the vocabulary "
                    f"(0..{self.vocab_size - 1})"
                )

    @property
    def query_size(self) -> int:
        """H * P: width of the query projection, which may differ from D."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """G * P: width of the key and of the value projection."""
        return self.num_kv_heads * self.head_dim

    @property
    def num_pieces(self) -> int:
        """(layer, expert) pieces of the whole model."""
        return self.num_layers * self.num_experts

    @property
    def expert_params(self) -> int:
        """Weights of one expert: w1, w3 and w2."""
        return 3 * self.hidden_size * self.expert_size

    @property
    def attention_params(self) -> int:
        """Weights outside the experts: attention, routing, norms, embedding, LM head."""
        d, q, kv = self.hidden_size, self.query_size, self.kv_size
        layer = d * (q + 2 * kv) + q * d + 2 * d + q + kv + self.num_experts * (d + 1)
        return self.num_layers * layer + 2 * self.vocab_size * d + d

    @property
    def auto_dtype(self) -> str:
        """The default compute dtype: float32 if the whole model is small in it.

        Only float32 keeps the defined rounding points exactly (torch's bfloat16 GEMM rounds its
        accumulators); bfloat16 is for models whose weights would be too large or slow to read.
        """
        float32_bytes = 4 * (self.attention_params + self.num_pieces * self.expert_params)
        return "f32" if float32_bytes <= AUTO_FLOAT32_BYTES else "bf16"

    def kv_bytes_per_token(self, itemsize: int) -> int:
        """Bytes of K and V of one position over all layers."""
        return 2 * self.num_layers * self.kv_size * itemsize


@dataclass(frozen=True, kw_only=True)
class GenerationDefaults:
    """Sampling defaults of the checkpoint's generation_config.json."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    eos_token_ids: tuple[int, ...] = ()


def load_generation_defaults(folder: Path, without_file: GenerationDefaults) -> GenerationDefaults:
    """Read `folder`/generation_config.json. Raises ValueError naming the file or its key."""
    path = Path(folder) / "generation_config.json"
    if not path.exists():
        return without_file
    raw = read_json(path)
    if raw.get("do_sample") is False:
        raw = {**raw, "temperature": 0.0}
    return GenerationDefaults(
        temperature=number(raw, "temperature", 1.0),
        top_p=number(raw, "top_p", 1.0),
        top_k=integer(raw, "top_k", 0),
        repetition_penalty=number(raw, "repetition_penalty", 1.0),
        eos_token_ids=token_ids(raw, "eos_token_id"),
    )
