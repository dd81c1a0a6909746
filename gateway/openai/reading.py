"""How does a body become typed fields, and which tenant's is it?"""

from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from gateway.errors import bad_field
from gateway.http.auth import tenant_of
from gateway.http.requests import gateway_of, read_object
from gateway.http.typed_body import parse_model
from gateway.openai.field_rules import FieldRules
from gateway.openai.models import SamplingFields
from gateway.text.prompt_encoder import ChatNames

CHAT_NAMES = ChatNames(messages="messages", tools="tools")

Fields = TypeVar("Fields", bound=BaseModel)


async def read_body(request: Request) -> dict[str, Any]:
    """The body's object. Raises RequestError."""
    return await read_object(request, gateway_of(request).limits, history=CHAT_NAMES.messages)


def fields_of(request: Request, body: dict[str, Any], model: type[Fields]) -> Fields:
    """The typed fields. Raises RequestError naming the first wrong or refused one."""
    gateway = gateway_of(request)
    FieldRules(gateway.ignored_fields).check(body, model.model_fields)
    return parse_model(model, body)


def tenant_of_request(request: Request, fields: SamplingFields) -> str:
    """Whose cached prompts may be shared. Raises RequestError for a bad cache_salt."""
    salt, most = fields.cache_salt or "", gateway_of(request).limits.cache_salt_chars
    if len(salt) > most:
        raise bad_field("cache_salt", f"at most {most} characters")
    return tenant_of(request.state.key_id, salt)
