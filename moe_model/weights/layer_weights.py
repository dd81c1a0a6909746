"""What makes up a layer without its experts, in the dtypes it is computed with?"""

from collections.abc import Callable

import torch
from torch import Tensor

from moe_model.families.family import Specs
from moe_model.maths.layer import LayerWeights
from moe_model.maths.linears import Linears
from moe_model.quant import StoredMatrix


def layer_weights(
    specs: Specs, stored: Callable[[str], StoredMatrix], linears: Linears
) -> LayerWeights:
    """`stored`: gives a tensor of `specs` by its key. Routing stays float32."""
    dtype = linears.dtype

    def optional(key: str, as_dtype: torch.dtype) -> Tensor | None:
        return stored(key).to(as_dtype) if key in specs else None

    return LayerWeights(
        input_norm_D=stored("input_norm").to(dtype),
        qkv_AD=linears.make([stored(key) for key in ("q", "k", "v")]),
        q_norm=optional("q_norm", dtype),
        k_norm=optional("k_norm", dtype),
        o_DA=linears.make([stored("o")]),
        post_norm_D=stored("post_norm").to(dtype),
        routing_ED=linears.make_routing(stored("routing")),
        bias_E=optional("bias", torch.float32),
    )
