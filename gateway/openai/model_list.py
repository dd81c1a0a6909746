"""GET /v1/models: under which names is the model served, and what do clients learn of it?"""

from typing import Any

from openai.types import Model
from starlette.requests import Request
from starlette.responses import Response

from gateway.http.context import Gateway
from gateway.http.requests import gateway_of, json_response


async def list_models(request: Request) -> Response:
    """Every name under which the model is served."""
    gateway = gateway_of(request)
    models = [_model(gateway, name) for name in gateway.model.names]
    return json_response({"object": "list", "data": models})


async def get_model(request: Request) -> Response:
    """One name. 404 when it is not served."""
    gateway = gateway_of(request)
    name = request.path_params["model_id"]
    if not name:  # /v1/models/
        return await list_models(request)
    gateway.check_model(name)
    return json_response(_model(gateway, name))


def _model(gateway: Gateway, name: str) -> dict[str, Any]:
    model = Model.model_construct(
        id=name, created=gateway.model.created, object="model", owned_by="expertmesh"
    )
    return {
        **model.model_dump(exclude_unset=True),
        "max_model_len": gateway.max_model_len,
        "bos_token_id": gateway.model.bos_token_id,
        "eos_token_id": gateway.model.eos_token_id,
        "marker_token_ids": dict(gateway.model.tokenizer.marker_ids),
    }
