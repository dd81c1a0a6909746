"""In which form does a machine serve a layer's attention block fastest?"""

from moe_model.config import ModelConfig
from moe_model.kernels.cpu.layer import NativeLayer, can_run
from moe_model.maths.layer import Layer, LayerWeights, PlainLayer
from moe_model.maths.row_maths import TORCH, RowMaths


def hold_layer(held: LayerWeights, config: ModelConfig, maths: RowMaths) -> Layer:
    """Two native calls where rows and weights are theirs, else step by step with `maths`."""
    linears = (held.qkv_AD, held.o_DA, held.routing_ED)
    if maths is TORCH or not can_run(linears):
        return PlainLayer(held, config, maths)
    return NativeLayer(
        *linears, held.input_norm_D, held.post_norm_D, held.qk_norms, held.bias_E,
        num_heads=config.num_heads, num_groups=config.num_kv_heads, head_dim=config.head_dim,
        top_k=config.top_k, eps=config.rms_norm_eps,
    )  # fmt: skip
