"""How does a request's grammar reach the attention services: compiled once and sent once to each?

A request has up to 128 choices, and its grammar may have half a megabyte. The first choice at a
service sends the text; the others wait until the service has accepted or refused it, and then send
its digest. A refusal ends the whole request.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import grpc
import grpc.aio

from gateway.errors import RequestError, bad_field
from moe_model.chat.answer_grammar import named_refusal
from protos import attention_pb2
from rpc.config import GRAMMAR_TAKEN


class GenerateCall(Protocol):
    """What is used of a `Generate` call."""

    def __aiter__(self) -> AsyncIterator[attention_pb2.GenerateResponse]: ...

    async def initial_metadata(self) -> grpc.aio.Metadata: ...

    async def code(self) -> grpc.StatusCode: ...

    async def details(self) -> str | None: ...

    def done(self) -> bool: ...

    def cancel(self) -> object: ...


Ask = Callable[[attention_pb2.GenerateRequest], GenerateCall]


class RequestGrammar:
    """The grammar of all choices of one request."""

    def __init__(self, text: str, field: str):
        """`field`: the client's name for it, for the error when it is refused."""
        self.field = field
        self._grammar = attention_pb2.Grammar(kind=attention_pb2.GRAMMAR_KIND_LARK, text=text)
        self._digest = hashlib.sha256(text.encode()).digest()
        self._refusal: RequestError | None = None
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._taken_by: dict[str, bool] = {}
        """Address of a service that accepted it -> whether it then knows it by its digest."""

    async def open(
        self,
        address: str,
        ask: Ask,
        request: attention_pb2.GenerateRequest,
    ) -> GenerateCall:
        """Ask for `request` with this grammar; the caller cancels the call when it has ended.

        Raises RequestError when the grammar was refused, for this choice or an earlier one.
        """
        own = attention_pb2.GenerateRequest()
        own.CopyFrom(request)
        async with self._asking[address]:
            if self._refusal is not None:
                raise self._refusal
            if address not in self._taken_by:
                return await self._send_text(address, ask, own)
        if self._taken_by[address]:
            own.grammar_id = self._digest
            call = await self._answered(ask(own))
            if not await _is_unknown(call):
                return call
            own.ClearField("grammar_id")  # a service keeps the latest ones only
        return await self._send_text(address, ask, own)

    async def _send_text(
        self,
        address: str,
        ask: Ask,
        own: attention_pb2.GenerateRequest,
    ) -> GenerateCall:
        own.grammar.CopyFrom(self._grammar)
        call = await self._answered(ask(own))
        if GRAMMAR_TAKEN in tuple(await call.initial_metadata()):
            self._taken_by[address] = True
        elif not call.done() or await call.code() is grpc.StatusCode.OK:
            self._taken_by.setdefault(address, False)
        elif await call.code() is grpc.StatusCode.INVALID_ARGUMENT:
            self._refusal = self.refused(await call.details() or "")
        return call

    async def _answered(self, call: GenerateCall) -> GenerateCall:
        """The call, once the service has accepted or refused it.

        A service of version 1.1 shows that only by its first event.
        """
        try:
            await call.initial_metadata()
        except BaseException:
            call.cancel()
            raise
        return call

    def refused(self, details: str) -> RequestError | None:
        """The client's error, when the details of an INVALID_ARGUMENT are about the grammar."""
        if not details.startswith("grammar"):
            return None
        reason = named_refusal(self._grammar.text, details.removeprefix("grammar: "))
        return bad_field(self.field, reason)


async def _is_unknown(call: GenerateCall) -> bool:
    return (
        call.done()
        and await call.code() is grpc.StatusCode.FAILED_PRECONDITION
        and (await call.details() or "").startswith("grammar_id")
    )
