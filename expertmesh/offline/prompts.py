"""How is each form of prompts and conversations brought into one form, a list?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expertmesh.inputs import RenderedPrompt
from expertmesh.offline.sampling_params import SamplingParams


@dataclass(frozen=True, kw_only=True)
class GivenPrompt:
    """Text to encode, or ids, or both (then the ids are used)."""

    name: str
    """Its name in errors."""
    text: str | None = None
    ids: list[int] | None = None


def as_prompts(prompts: Any) -> list[GivenPrompt]:
    """`prompts` as a list. Raises TypeError or ValueError naming the bad one."""
    if isinstance(prompts, str | Mapping):
        return [_prompt("prompts", prompts)]
    if not isinstance(prompts, Sequence):
        raise TypeError(f"prompts: {_FORMS}, got {type(prompts).__name__}")
    if prompts and all(_is_id(one) for one in prompts):
        return [_prompt("prompts", prompts)]
    return [_prompt(f"prompts[{i}]", one) for i, one in enumerate(prompts)]


def as_conversations(messages: Any) -> list[list[Any]]:
    """One conversation or several, as a list. Raises TypeError or ValueError."""
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise TypeError(
            "messages: a list of messages or a list of conversations, got "
            f"{type(messages).__name__}"
        )
    if not messages:
        raise ValueError("messages: must not be empty")
    if isinstance(messages[0], Mapping):
        return [_plain(messages)]
    for index, conversation in enumerate(messages):
        if not isinstance(conversation, Sequence) or isinstance(conversation, str):
            raise TypeError(f"messages[{index}]: must be a list of messages")
    return [_plain(conversation) for conversation in messages]


def as_params(
    params: SamplingParams | Sequence[SamplingParams] | None, count: int, default: SamplingParams
) -> list[SamplingParams]:
    """The parameters of each prompt, as a list. Raises TypeError or ValueError."""
    if params is None:
        return [default] * count
    if isinstance(params, SamplingParams):
        return [params] * count
    if not isinstance(params, Sequence) or not all(isinstance(p, SamplingParams) for p in params):
        raise TypeError("sampling_params: a SamplingParams or a list of them")
    if len(params) != count:
        raise ValueError(
            f"sampling_params: one for each prompt, got {len(params)} for {count} prompts"
        )
    return list(params)


_FORMS = (
    'a string, {"prompt": text}, {"prompt_token_ids": ids}, a list of token ids, or a list of these'
)


def _prompt(name: str, prompt: Any) -> GivenPrompt:
    if isinstance(prompt, RenderedPrompt):
        return GivenPrompt(name=name, text=str(prompt), ids=list(prompt.token_ids))
    if isinstance(prompt, str):
        return GivenPrompt(name=name, text=_not_empty(name, prompt))
    if isinstance(prompt, Mapping):
        unknown = set(prompt) - {"prompt", "prompt_token_ids", "cache_salt"}
        if unknown or not {"prompt", "prompt_token_ids"} & set(prompt):
            raise ValueError(f"{name}: {_FORMS}, got a dictionary with {sorted(prompt)}")
        text = prompt.get("prompt")
        if "prompt_token_ids" not in prompt:
            return _prompt(name, text)
        return GivenPrompt(name=name, text=text, ids=_ids(name, prompt["prompt_token_ids"]))
    if isinstance(prompt, Sequence):
        return GivenPrompt(name=name, ids=_ids(name, prompt))
    raise TypeError(f"{name}: {_FORMS}, got {type(prompt).__name__}")


def _ids(name: str, ids: Any) -> list[int]:
    if not isinstance(ids, Sequence) or not all(_is_id(one) for one in ids):
        raise ValueError(f"{name}: token ids must be integers of at least 0")
    return list(_not_empty(name, ids))


def _not_empty(name: str, value: Any) -> Any:
    if not value:
        raise ValueError(f"{name}: must not be empty")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _plain(conversation: Sequence[Any]) -> list[Any]:
    return [dict(one) if isinstance(one, Mapping) else one for one in conversation]
