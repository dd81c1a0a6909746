"""The command line and the local cluster: the only place that composes services.

`from expertmesh import LLM, SamplingParams` is the offline use. The names are resolved when
they are first asked for: the command line must not pay for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expertmesh.inputs import TextPrompt, TokensPrompt
    from expertmesh.offline.llm import LLM
    from expertmesh.offline.sampling_params import SamplingParams
    from expertmesh.outputs import CompletionOutput, RequestOutput

__all__ = [
    "LLM",
    "CompletionOutput",
    "RequestOutput",
    "SamplingParams",
    "TextPrompt",
    "TokensPrompt",
]

_HOMES = {
    "LLM": "expertmesh.offline.llm",
    "CompletionOutput": "expertmesh.outputs",
    "RequestOutput": "expertmesh.outputs",
    "SamplingParams": "expertmesh.offline.sampling_params",
    "TextPrompt": "expertmesh.inputs",
    "TokensPrompt": "expertmesh.inputs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'expertmesh' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
