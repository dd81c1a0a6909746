"""Which GenerateRequest asks the attention service for one choice?"""

from collections.abc import Sequence

from starlette.requests import Request

from gateway.errors import bad_field
from gateway.http.auth import ANONYMOUS, tenant_of
from gateway.http.context import Gateway
from gateway.openai.models import SamplingFields
from moe_model.text.added_tokens import THINK_END, THINK_START
from protos import attention_pb2


def new_request(
    gateway: Gateway,
    *,
    request_id: str,
    prompt: Sequence[int],
    sampling: attention_pb2.SamplingParams,
    choice_idx: int,
    tenant: str,
    client_id: str,
    fields: SamplingFields,
    thinks: bool,
) -> attention_pb2.GenerateRequest:
    """A fresh sequence; its grammar comes when it is sent."""
    return attention_pb2.GenerateRequest(
        request_id=request_id,
        prompt_token_ids=prompt,
        sampling=sampling,
        cache_salt=tenant,
        client_id=client_id,
        end_of_thinking_id=gateway.model.end_of_thinking_id if thinks else 0,
        timeout_ms=int(gateway.config.request_timeout_s * 1e3),
        choice_idx=choice_idx,
        report_timings=bool(fields.expertmesh_timings),
    )


def tenant_of_request(gateway: Gateway, request: Request, fields: SamplingFields) -> str:
    """Whose cached prompts may be shared. Raises ApiError 400 for a bad cache_salt."""
    salt = fields.cache_salt or ""
    if len(salt) > gateway.limits.cache_salt_chars:
        raise bad_field("cache_salt", f"at most {gateway.limits.cache_salt_chars} characters")
    return tenant_of(request.state.key_id, salt)


def client_of_request(request: Request) -> str:
    """Whose fair share of every queue it takes: its key's. No name where nobody needs a key."""
    key_id: str = request.state.key_id
    return "" if key_id == ANONYMOUS else key_id


def stop_ids_of(gateway: Gateway, sampling: attention_pb2.SamplingParams) -> frozenset[int]:
    """Ids that end the sequence; they are counted but never part of the text."""
    own = frozenset(sampling.stop_token_ids)
    return own if sampling.ignore_eos else own | gateway.stop_ids


def output_limit(
    max_tokens: int | None, max_completion_tokens: int | None
) -> tuple[int | None, str]:
    """The limit and the field that gave it. Raises ApiError 400 when both differ."""
    if max_completion_tokens is None:
        return max_tokens, "max_tokens"
    if max_tokens is not None and max_tokens != max_completion_tokens:
        raise bad_field("max_completion_tokens", "differs from max_tokens; give one of them")
    return max_completion_tokens, "max_completion_tokens"


def starts_in_reasoning(gateway: Gateway, prompt: Sequence[int]) -> bool:
    """Whether the last think tag of the prompt opens thinking, as M2's template writes it."""
    markers = gateway.model.tokenizer.marker_ids
    opening, closing = markers[THINK_START], markers[THINK_END]
    for token_id in reversed(prompt):
        if token_id in (opening, closing):
            return token_id == opening
    return False
