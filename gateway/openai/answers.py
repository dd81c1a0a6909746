"""What do this API's answers hold? For the description of the API; the replies write them.

Nothing is listed that is never sent, and the tests compare every kind of answer with these models.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from gateway.http.dialect import Answer
from gateway.shapes.logprobs import TokenLogprob


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PromptDetails(_Told):
    """Of the prompt's tokens."""

    cached_tokens: int


class CompletionDetails(_Told):
    """Of the answer's tokens."""

    reasoning_tokens: int


class Usage(_Told):
    """How many tokens the request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class CalledFunction(_Told):
    """In a stream only what is new of it."""

    name: str | None = None
    arguments: str


class ToolCall(_Told):
    """A call of a tool. In a stream `index` says which, and only the first part has the id."""

    index: int | None = None
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunction


class ChatLogprobs(_Told):
    """One entry for each token."""

    content: list[TokenLogprob]


class ChatMessage(_Told):
    """An answer, or in a stream what is new of it."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class _Choice(_Told):
    index: int
    finish_reason: Literal["stop", "length", "tool_calls"] | None
    token_ids: list[int] | None = None
    stop_reason: str | int | None = None


class ChatChoice(_Choice):
    """One answer."""

    message: ChatMessage
    logprobs: ChatLogprobs | None


class ChatChunkChoice(_Choice):
    """What is new of one answer."""

    delta: ChatMessage
    logprobs: ChatLogprobs | None
    prompt_token_ids: list[int] | None = None


class _Head(_Told):
    id: str
    created: int
    model: str
    usage: Usage | None = None
    expertmesh_timings: dict[str, float] | None = None
    """In milliseconds."""


class ChatAnswer(_Head):
    """A whole answer of chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    prompt_token_ids: list[int] | None = None


class ChatChunk(_Head):
    """An event of a streamed answer; the last one is `[DONE]`."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]


class CompletionLogprobs(_Told):
    """Parallel lists; the first token of an echoed prompt has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionAnswerChoice(_Choice):
    """One answer, or in a stream what is new of it."""

    text: str
    logprobs: CompletionLogprobs | None


class CompletionAnswer(_Head):
    """A whole answer of completions, or an event of a streamed one."""

    object: Literal["text_completion"]
    choices: list[CompletionAnswerChoice]


class ModelEntry(_Told):
    """A name under which the model is served."""

    id: str
    created: int
    object: Literal["model"]
    owned_by: str
    max_model_len: int
    bos_token_id: int | None
    eos_token_id: int | None
    marker_token_ids: dict[str, int]


class ModelNames(_Told):
    """All of them."""

    object: Literal["list"]
    data: list[ModelEntry]


class TokenizeAnswer(_Told):
    """The ids of a prompt."""

    count: int
    max_model_len: int
    tokens: list[int]


class DetokenizeAnswer(_Told):
    """The text of ids."""

    prompt: str


class TokenizerInfo(_Told):
    """The tokenizer's special tokens and the chat template, as vLLM tells them."""

    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str


class Modalities(_Told):
    """What the model reads beside text."""

    vision: bool
    audio: bool


class DefaultParameters(_Told):
    """Of sampling."""

    temperature: float
    top_k: int
    top_p: float


class DefaultSettings(_Told):
    """The context, and the sampling's defaults."""

    n_ctx: int
    params: DefaultParameters


class ServerProps(_Told):
    """The server as llama.cpp tells it."""

    default_generation_settings: DefaultSettings
    total_slots: int
    model_alias: str
    model_path: str
    chat_template: str
    modalities: Modalities
    build_info: str
    is_sleeping: bool


_CHAT = Answer(whole=ChatAnswer, event=ChatChunk)

ANSWERS = {
    "/v1/models": Answer(whole=ModelNames),
    "/v1/models/{model_id:path}": Answer(whole=ModelEntry),
    "/v1/chat/completions": _CHAT,
    "/v1/text/chat/completions": _CHAT,
    "/v1/completions": Answer(whole=CompletionAnswer, event=CompletionAnswer),
    "/tokenizer_info": Answer(whole=TokenizerInfo),
    "/props": Answer(whole=ServerProps),
    "/tokenize": Answer(whole=TokenizeAnswer),
    "/detokenize": Answer(whole=DetokenizeAnswer),
}
