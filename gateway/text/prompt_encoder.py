"""How does text become a prompt without stopping the event loop?

Short prompts are encoded in place. Long ones wait for their client's turn at a few threads, with a
time limit, and a prompt that cannot fit the context is refused by its length in bytes alone where
that suffices.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.errors import ContextExceeded, RequestError, bad_field
from gateway.limits import Limits
from gateway.text.emitted_ids import EmittedIds
from gateway.text.fair_threads import FairThreads
from gateway.text.model_files import ModelFiles
from gateway.text.returned_thinking import Conversation, ReturnedThinking
from moe_model.chat.messages import normalise_messages
from moe_model.chat.prefill import continued, is_open_answer
from moe_model.chat.repairs import Repairs
from moe_model.chat.tools import validate_tools

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ChatNames:
    """What the client calls the fields with the conversation and the tools."""

    messages: str
    tools: str
    function: str = ".function"
    """Within a tool; empty where its name and description are the tool's own."""
    parameters: str = ".parameters"
    places: Sequence[str] | None = None
    """Of each tool, where they are not simply the entries of `tools`."""


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """Token ids, and what the client calls the field that they come from."""

    ids: Sequence[int]
    field: str
    conversation: Conversation | None = None
    """What it was made from, of a chat whose thinking is kept: its answer may come back."""


class PromptEncoder:
    """Messages or text to token ids; every failure is a RequestError naming the field."""

    def __init__(
        self,
        model: ModelFiles,
        limits: Limits,
        *,
        reads_all: bool = False,
        count_repair: Callable[[str, int], None] = lambda kind, count: None,
        count_restored: Callable[[int], None] = lambda count: None,
    ):
        """`reads_all`: as `normalise_messages` has it."""
        self._model = model
        self.reads_all = reads_all
        self._count_repair = count_repair
        self._count_restored = count_restored
        self._limits = limits
        self.emitted_ids = EmittedIds(
            model.tokenizer, model.chat_format, max_bytes=limits.emitted_ids_bytes
        )
        self.thinking = ReturnedThinking(max_bytes=limits.returned_thinking_bytes)
        self.threads = FairThreads(limits.tokenise_threads, max_waiting=limits.tokenise_queue)

    def close(self) -> None:
        self.threads.close()

    async def chat(
        self,
        messages: list[Any],
        tools: list[Any],
        *,
        names: ChatNames,
        tenant: str,
        thinking_scope: str | None = None,
        client: str = "",
        body_bytes: int,
        max_model_len: int,
        add_generation_prompt: bool = True,
        go_on: bool = False,
        request_id: str = "-",
    ) -> EncodedPrompt:
        """Ids of the rendered conversation; what this tenant was answered keeps the ids it had,
        and turns with tool calls the thinking that a client left out.

        `go_on`: the answer continues the last message, if that is an assistant's without calls;
        else it is a finished turn. `body_bytes` decides where the work is done, `client` when. What
        was not rendered as it was sent is counted, and logged in a line with the request's id.
        """
        if len(messages) > self._limits.messages:
            raise bad_field(names.messages, f"at most {self._limits.messages}, got {len(messages)}")
        for index, message in enumerate(messages):
            if not isinstance(message, dict):
                raise bad_field(f"{names.messages}[{index}]", "must be an object", "invalid_type")
        if len(tools) > self._limits.tools:
            raise bad_field(names.tools, f"at most {self._limits.tools}, got {len(tools)}")

        repairs: Repairs = Counter()

        def encode() -> EncodedPrompt:
            offered = validate_tools(
                tools,
                names.tools,
                function_name=names.function,
                parameters_name=names.parameters,
                places=names.places,
            )
            think_tags = self._model.chat_format.think
            turns = normalise_messages(
                messages, repairs, names.messages, think_tags, reads_all=self.reads_all
            )
            # Before the template copies it several times over.
            said = sum(len(turn["content"]) for turn in turns if isinstance(turn["content"], str))
            self._refuse_by_size(names.messages, said, max_model_len)
            conversation = None
            if thinking_scope is not None:
                conversation = Conversation()
                restored = self.thinking.restore(thinking_scope, turns, conversation)
                self._count_restored(restored)
            last = turns.pop() if go_on and is_open_answer(turns) else None
            segments = self._model.template.render(
                turns,
                offered or None,
                add_generation_prompt=add_generation_prompt,
            )
            if last is not None:
                segments = continued(segments, last, think_tags)
            text_bytes = sum(len(segment.text) for segment in segments)
            self._refuse_by_size(names.messages, text_bytes, max_model_len)
            ids = self.emitted_ids.encode(tenant, segments)
            return EncodedPrompt(ids=ids, field=names.messages, conversation=conversation)

        encoded = await self._run(names.messages, encode, body_bytes, client)
        self._note(+repairs, request_id)
        return encoded

    def _note(self, repairs: Repairs, request_id: str) -> None:
        for kind, count in repairs.items():
            self._count_repair(kind, count)
        if repairs:
            counts = ", ".join(f"{kind} {count}" for kind, count in sorted(repairs.items()))
            log.warning(
                "request %s: earlier messages are not rendered as they were sent: %s",
                request_id,
                counts,
            )

    async def text(
        self, field: str, text: str, *, max_model_len: int, client: str = ""
    ) -> list[int]:
        """Ids of plain text; markers in it stay text."""
        self._refuse_by_size(field, len(text), max_model_len)
        encode = self._model.tokenizer.encode_text
        return await self._run(field, lambda: encode(text), len(text), client)

    def _refuse_by_size(self, field: str, num_chars: int, max_model_len: int) -> None:
        """A character has at least one byte, a token at most `longest_token_bytes`."""
        at_least = num_chars // self._model.longest_token_bytes
        if at_least > max_model_len:
            raise ContextExceeded(field, at_least, max_model_len, at_least=True)

    async def _run(self, field: str, work: Callable[[], Result], size: int, client: str) -> Result:
        try:
            if size <= self._limits.tokenise_inline_chars:
                return work()
            limit_s = self._limits.tokenise_timeout_s
            return await self.threads.run(client, work, timeout_s=limit_s)
        except TimeoutError:
            raise bad_field(
                field,
                f"could not be tokenised within {self._limits.tokenise_timeout_s:g} s",
                "prompt_too_long",
            ) from None
        except ValueError as error:
            raise field_error(field, str(error)) from None


def field_error(default_field: str, message: str) -> RequestError:
    """From a message of the form "field: what is wrong"."""
    field, separator, rest = message.partition(": ")
    if not separator or " " in field or len(field) > 200:
        return bad_field(default_field, message)
    return bad_field(field, rest)
