"""RMSNorm, also over the flattened query or key vector (QK-norm)."""

import torch
from torch import Tensor


def rms_norm(hidden_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Scale each row to unit root mean square, times `weight_D`.

    Statistics and the product are float32; the result is rounded once to the
    input's dtype. (Transformers rounds before the product, SGLang after it, as
    here; in float32 they are the same.)

    Source: the norms of a layer and the final one. QK-norm (`ModelConfig.use_qk_norm`) is
    this function over all heads of a projection at once, with a weight of [H*P].
    """
    wide_TD = hidden_TD.float()
    scale_T1 = torch.rsqrt(wide_TD.square().mean(-1, keepdim=True) + eps)
    return (wide_TD * scale_T1 * weight_D.float()).to(hidden_TD.dtype)
