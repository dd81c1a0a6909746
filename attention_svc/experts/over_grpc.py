"""How are the experts of remote pools asked? Over gRPC, one message per pool and layer."""

import itertools
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor

from attention_svc.experts.call import ExpertCall
from attention_svc.experts.call_parts import CallContext
from attention_svc.experts.health import RetryBudget
from attention_svc.experts.link import PoolLink
from attention_svc.experts.pools import PoolSet
from attention_svc.experts.transport import HopTerms
from attention_svc.metrics import AttentionMetrics
from moe_model.config import ModelConfig
from rpc.channel import Access
from rpc.hop.codec import HopCodec


class GrpcTransport:
    """Sends each row once to every pool that serves one of its experts."""

    on_host = True

    def __init__(self, pools: PoolSet, metrics: AttentionMetrics, codec: HopCodec):
        self.pools = pools
        self.context = CallContext(pools, codec, metrics, RetryBudget(), itertools.count(1))

    @classmethod
    def of_model(
        cls,
        config: ModelConfig,
        metrics: AttentionMetrics,
        *,
        checkpoint_id: str,
        caller_id: str,
        access: Access | None,
        same_numerics: bool = False,
        work: Callable[[], np.ndarray] | None = None,
    ) -> "GrpcTransport":
        """For the pools of a topology, which `pools.apply` brings; see PoolLink and PoolSet."""
        codec = HopCodec.best()
        make_link = partial(
            PoolLink,
            caller_id=caller_id,
            checkpoint_id=checkpoint_id,
            num_layers=config.num_layers,
            num_experts=config.num_experts,
            access=access,
            metrics=metrics,
            codec=codec,
        )
        pools = PoolSet(
            config.num_layers,
            config.num_experts,
            make_link,
            same_numerics=same_numerics,
            work=work,
        )
        return cls(pools, metrics, codec)

    def held_here(self) -> tuple[()]:
        return ()

    def ready(self) -> tuple[bool, str]:
        missing = self.pools.missing()
        if not missing:
            reason = self.context.outages.reason(time.monotonic())
            return not reason, reason
        total = sum(missing.values())
        layers = ", ".join(str(layer_idx) for layer_idx in list(missing)[:8])
        more = ", ..." if len(missing) > 8 else ""
        return False, f"no pool serves {total} pieces (layers {layers}{more})"

    def submit(
        self,
        layer_idx: int,
        hidden_TD: Tensor,
        topk_ids_TK: Tensor,
        topk_weights_TK: Tensor,
        terms: HopTerms,
        *,
        is_decode: bool,
    ) -> ExpertCall:
        rows = (hidden_TD, topk_ids_TK, topk_weights_TK)
        call = ExpertCall(self.context, terms, layer_idx, rows, is_decode=is_decode)
        call.start()
        return call
