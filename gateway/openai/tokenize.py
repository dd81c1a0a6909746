"""POST /tokenize and /detokenize: which ids does a text have, and back?"""

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import ContextExceeded, bad_field
from gateway.http.auth import tenant_of
from gateway.http.requests import (
    client_of_request,
    counted,
    gateway_of,
    json_response,
    thinking_scope,
)
from gateway.http.typed_body import parse_model
from gateway.openai.models import DetokenizeRequest, TokenizeRequest
from gateway.openai.reading import CHAT_NAMES, fields_of, read_body


async def tokenize(request: Request) -> Response:
    """Ids of a prompt, or of messages as the chat endpoint would send them."""
    with counted(request):
        gateway = gateway_of(request)
        body = await read_body(request)
        fields = fields_of(request, body, TokenizeRequest)
        if fields.model is not None:
            gateway.check_model(fields.model)
        if (fields.prompt is None) == (fields.messages is None):
            raise bad_field("prompt", "give either prompt or messages")
        max_model_len = gateway.max_model_len
        if fields.prompt is not None:
            ids = await gateway.encoder.text(
                "prompt",
                fields.prompt,
                max_model_len=max_model_len,
                client=client_of_request(request),
            )
        else:
            tenant = tenant_of(request.state.key_id, "")
            prompt = await gateway.encoder.chat(
                fields.messages or [],
                fields.tools or [],
                names=CHAT_NAMES,
                tenant=tenant,
                thinking_scope=thinking_scope(request, tenant, ""),
                client=client_of_request(request),
                body_bytes=len(await request.body()),
                max_model_len=max_model_len,
                add_generation_prompt=fields.add_generation_prompt is not False,
                request_id=request.state.request_id,
            )
            ids = list(prompt.ids)
        return json_response({"count": len(ids), "max_model_len": max_model_len, "tokens": ids})


async def detokenize(request: Request) -> Response:
    """Text of ids; markers are written out, bytes that are no text give U+FFFD."""
    with counted(request):
        gateway = gateway_of(request)
        body = await read_body(request)
        fields = parse_model(DetokenizeRequest, body)
        if fields.model is not None:
            gateway.check_model(fields.model)
        if len(fields.tokens) > gateway.max_model_len:
            raise ContextExceeded(
                "tokens", len(fields.tokens), gateway.max_model_len, at_least=False
            )
        for index, token_id in enumerate(fields.tokens):
            if not gateway.model.tokenizer.has_token(token_id):
                raise bad_field(f"tokens[{index}]", f"{token_id} is not in the vocabulary")
        return json_response({"prompt": gateway.model.tokenizer.decode(fields.tokens)})
