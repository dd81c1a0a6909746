"""The command line, the local cluster, and `LLM`: the only package that composes services.

`from expertmesh import LLM, SamplingParams` is for offline use, `ToolAgent` for the agent,
`DevelopmentAssistant` for the assistants. The names are imported when they are first used, so that
the command line does not import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expertmesh.agent.facade import ToolAgent
    from expertmesh.assistants.data.facade import DataAnalysisAssistant
    from expertmesh.assistants.development import DevelopmentAssistant
    from expertmesh.inputs import TextPrompt, TokensPrompt
    from expertmesh.offline.async_llm import AsyncLLM
    from expertmesh.offline.llm import LLM
    from expertmesh.offline.sampling_params import SamplingParams
    from expertmesh.outputs import CompletionOutput, RequestOutput

__all__ = [
    "LLM",
    "AsyncLLM",
    "CompletionOutput",
    "DataAnalysisAssistant",
    "DevelopmentAssistant",
    "RequestOutput",
    "SamplingParams",
    "TextPrompt",
    "TokensPrompt",
    "ToolAgent",
]

_HOMES = {
    "AsyncLLM": "expertmesh.offline.async_llm",
    "LLM": "expertmesh.offline.llm",
    "CompletionOutput": "expertmesh.outputs",
    "DataAnalysisAssistant": "expertmesh.assistants.data.facade",
    "DevelopmentAssistant": "expertmesh.assistants.development",
    "RequestOutput": "expertmesh.outputs",
    "SamplingParams": "expertmesh.offline.sampling_params",
    "TextPrompt": "expertmesh.inputs",
    "TokensPrompt": "expertmesh.inputs",
    "ToolAgent": "expertmesh.agent.facade",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'expertmesh' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
