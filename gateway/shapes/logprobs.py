"""How are log-probabilities of tokens written? As OpenAI's chat and Responses do."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from gateway.text.model_files import ModelFiles
from protos import attention_pb2

LEAST_LOGPROB = -9999.0
"""Instead of minus infinity, which JSON cannot say."""


class TopLogprob(BaseModel):
    """A token that could have come."""

    model_config = ConfigDict(extra="forbid")

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token that came."""

    top_logprobs: list[TopLogprob]


def token_text(model: ModelFiles, token_id: int) -> str:
    """A token as text; tokens that are no whole characters read as `bytes:\\xe2\\x82`."""
    data = model.tokenizer.token_bytes(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def token_logprobs(
    model: ModelFiles, token_ids: Sequence[int], logprobs: Sequence[attention_pb2.TokenLogprobs]
) -> Iterator[dict[str, Any]]:
    """For each token its text, bytes and log-probability, and those of the alternatives."""
    for token_id, one in zip(token_ids, logprobs, strict=True):
        alternatives = zip(one.top_token_ids, one.top_logprobs, strict=False)
        yield {
            **_token(model, token_id, one.logprob),
            "top_logprobs": [_token(model, other, value) for other, value in alternatives],
        }


def _token(model: ModelFiles, token_id: int, logprob: float) -> dict[str, Any]:
    return {
        "token": token_text(model, token_id),
        "logprob": max(logprob, LEAST_LOGPROB),
        "bytes": list(model.tokenizer.token_bytes(token_id)),
    }
