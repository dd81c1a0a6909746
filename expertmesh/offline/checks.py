"""Which sampling does a request ask for, and is it allowed? Checked as in the gateway.

The ranges of values are the gateway's. The limits that protect a server from its clients are wide
here, because an offline caller only uses its own machine.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from gateway.errors import Kind, RequestError
from gateway.generate.request import Answers
from gateway.limits import Limits
from gateway.openai.completion_fields import read_completion
from moe_model.config import GenerationDefaults

LIMITS = Limits(
    choices=1024,
    streams=1024,
    stops=256,
    stop_chars=4096,
    stop_token_ids=64,
    bad_words=1024,
    bad_word_chars=256,
    tokenise_timeout_s=600.0,
    tokenise_queue=1_000_000,
)
_ANY_LENGTH = 2**31 - 1


class GenerationFailed(RuntimeError):
    """A valid request ended without an answer; the message says why."""


@contextlib.contextmanager
def python_errors() -> Iterator[None]:
    """Raise the caller's mistakes as ValueError, everything else as GenerationFailed."""
    try:
        yield
    except RequestError as error:
        is_callers = error.kind in (Kind.INVALID_REQUEST, Kind.TOO_LARGE)
        raise (ValueError if is_callers else GenerationFailed)(error.message) from None


def read_fields(
    fields: dict[str, Any],
    defaults: GenerationDefaults | None = None,
    *,
    vocab_size: int = _ANY_LENGTH,
) -> Answers:
    """What the fields of a completion ask for. Raises ValueError naming a bad one."""
    defaults = defaults or GenerationDefaults()
    with python_errors():
        return read_completion(fields, defaults, vocab_size=vocab_size, limits=LIMITS)
