"""What does a dialect ask of the core? Prompts, parameters, the form of the answers, a tenant."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.generate.bad_words import BadWords
from gateway.generate.form import AnswerForm
from gateway.generate.parameters import OutputLength
from gateway.text.prompt_encoder import EncodedPrompt
from protos import attention_pb2


def numbered_call(index: int) -> str:
    """Stands for the id of a turn's call in an API without ids, in answers and in history."""
    return f"call_{index}"


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How the answers of a chat are read."""

    tools: Sequence[Any] = ()
    """Those on offer, as the chat template takes them, validated."""
    may_call: bool = True
    """False: the tools are shown to the model, and it can call none."""
    several_calls: bool = True
    thinking_in_content: bool = False
    """Thinking stays in the content, tagged as the template tags it."""
    call_prefix: str = "call_"
    """How the ids of calls begin."""
    numbered_calls: bool = False
    """Calls have no ids for the client; to know a turn that comes back, see `numbered_call`."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is asked of the answers, whatever the prompt."""

    sampling: attention_pb2.SamplingParams
    """All but the output's length, which depends on the prompt."""
    length: OutputLength
    num_choices: int = 1
    """Of each prompt."""
    stops: Sequence[str] = ()
    bad_words: BadWords = field(default_factory=BadWords)
    form: AnswerForm = field(default_factory=AnswerForm)
    chat: ChatOptions | None = None
    """None: the answers are plain text."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One request, checked. Its choices are numbered prompt by prompt."""

    request_id: str
    prompts: Sequence[EncodedPrompt]
    answers: Answers
    tenant: str = ""
    """Whose cached prompts may be shared."""
    client_id: str = ""
    """Whose share of every queue it counts towards; empty: nobody's."""
    thinking_scope: str | None = None
    """Within which the answers' thinking is put back when a client drops it; None: not at all."""
    session: str = ""
    """What ties requests to one conversation: they prefer one attention service."""
    with_timings: bool = False
    received_s: float = field(default_factory=time.monotonic)
    """When the client's request was received: its time limit counts from there."""
