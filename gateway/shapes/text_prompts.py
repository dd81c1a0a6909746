"""Which prompts does a field hold that takes texts and token ids? A list of one or many."""

from collections.abc import Sequence
from typing import Any

from gateway.errors import ContextExceeded, bad_field
from gateway.http.context import Gateway
from gateway.text.prompt_encoder import EncodedPrompt

TextOrIds = str | list[int]


def prompts_of(gateway: Gateway, field: str, given: Any) -> list[TextOrIds]:
    """The four forms as a list. Raises RequestError naming the element."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise bad_field(field, "must be a string, strings, token ids or lists of token ids")
    if _is_int(given[0]):
        return [_token_ids(gateway, field, given)]
    if len(given) > gateway.limits.prompts:
        raise bad_field(field, f"at most {gateway.limits.prompts} prompts, got {len(given)}")
    prompts: list[TextOrIds] = []
    for index, one in enumerate(given):
        if isinstance(one, str):
            prompts.append(one)
        elif isinstance(one, list):
            prompts.append(_token_ids(gateway, f"{field}[{index}]", one))
        else:
            raise bad_field(
                f"{field}[{index}]", "must be a string or a list of token ids", "invalid_type"
            )
    return prompts


async def encode_prompts(
    gateway: Gateway, field: str, given: Any, prompts: Sequence[TextOrIds], client: str
) -> list[EncodedPrompt]:
    """The prompts of `given`, encoded in turn. Raises RequestError naming the element."""
    several = isinstance(given, list) and not _is_int(given[0])
    names = [f"{field}[{index}]" if several else field for index in range(len(prompts))]
    return [
        await _encode(gateway, prompt, name, client)
        for prompt, name in zip(prompts, names, strict=True)
    ]


def check_prompt_logprobs(
    gateway: Gateway, field: str, num_tokens: int, num_alternatives: int
) -> None:
    """Raises RequestError when prompts would have more log-probabilities than are told."""
    entries = num_tokens * (1 + num_alternatives)
    most = gateway.limits.prompt_logprobs
    if entries > most:
        raise bad_field(field, f"with its own at most {most} log-probabilities, asks for {entries}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _token_ids(gateway: Gateway, name: str, ids: Sequence[Any]) -> list[int]:
    if not ids:
        raise bad_field(name, "must not be empty")
    if len(ids) >= gateway.max_model_len:  # before each of a million is checked
        raise ContextExceeded(name, len(ids), gateway.max_model_len, at_least=False)
    tokenizer = gateway.model.tokenizer
    for index, token_id in enumerate(ids):
        if not _is_int(token_id):
            raise bad_field(f"{name}[{index}]", "must be a token id", "invalid_type")
        if not tokenizer.has_token(token_id):
            raise bad_field(f"{name}[{index}]", f"{token_id} is not in the vocabulary")
    return list(ids)


async def _encode(gateway: Gateway, prompt: TextOrIds, name: str, client: str) -> EncodedPrompt:
    if isinstance(prompt, list):
        return EncodedPrompt(ids=prompt, field=name)
    if not prompt:
        raise bad_field(name, "must not be empty")
    ids = await gateway.encoder.text(
        name, prompt, max_model_len=gateway.max_model_len, client=client
    )
    return EncodedPrompt(ids=ids, field=name)
