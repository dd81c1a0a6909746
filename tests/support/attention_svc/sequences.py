"""Sequences for tests of the scheduler and the sampler."""

from typing import Any

from attention_svc.sequence.params import SequenceParams, read_params
from attention_svc.sequence.sequence import Sequence
from protos import attention_pb2

VOCAB = 50
PLAIN: dict[str, Any] = {"top_p": 1.0, "repetition_penalty": 1.0, "max_tokens": 8}


def message(**fields: Any) -> attention_pb2.SamplingParams:
    """A sound SequenceParams, changed as told; logit_bias as {id: bias}."""
    fields = {**PLAIN, **fields}
    bias = fields.pop("logit_bias", {})
    made = attention_pb2.SamplingParams(**fields)
    for token_id, value in bias.items():
        made.logit_bias.add(token_id=token_id, bias=value)
    return made


def params(vocab: int = VOCAB, **fields: Any) -> SequenceParams:
    return read_params(message(**fields), vocab)


def sequence(
    prompt: list[int] | int = 1,
    output: list[int] | None = None,
    *,
    stop_ids: tuple[int, ...] = (),
    choice_idx: int = 0,
    vocab: int = VOCAB,
    client_id: str = "",
    **fields: Any,
) -> Sequence:
    """`prompt`: ids, or how many."""
    ids = list(prompt) if isinstance(prompt, list) else [3] * prompt
    return Sequence(
        request_id="test",
        prompt_ids=ids,
        output_ids=list(output or []),
        params=params(vocab, **fields),
        stop_ids=frozenset(stop_ids),
        choice_idx=choice_idx,
        client_id=client_id,
    )
