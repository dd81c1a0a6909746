"""Where do scripts written for vLLM look for sampling parameters? Under this name: a door, no code."""

from expertmesh.offline.sampling_params import (
    RequestOutputKind,
    SamplingParams,
    StructuredOutputsParams,
)

__all__ = ["RequestOutputKind", "SamplingParams", "StructuredOutputsParams"]
