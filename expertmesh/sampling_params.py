"""Where do scripts written for vLLM import sampling parameters from? This module's name."""

from expertmesh.offline.sampling_params import (
    RequestOutputKind,
    SamplingParams,
    StructuredOutputsParams,
)

__all__ = ["RequestOutputKind", "SamplingParams", "StructuredOutputsParams"]
