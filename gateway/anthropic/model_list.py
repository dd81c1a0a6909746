"""GET /v1/models in Anthropic's shape: under which names is the model served?"""

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.http.context import Gateway
from gateway.http.requests import gateway_of, json_response


async def list_models(request: Request) -> Response:
    """Every name under which the model is served, on one page."""
    gateway = gateway_of(request)
    names = gateway.model.names
    models = [_model(gateway, name) for name in names]
    return json_response(
        {"data": models, "has_more": False, "first_id": names[0], "last_id": names[-1]}
    )


async def get_model(request: Request) -> Response:
    """One name. 404 when it is not served."""
    gateway = gateway_of(request)
    name = request.path_params["model_id"]
    if not name:  # /v1/models/
        return await list_models(request)
    gateway.check_model(name)
    return json_response(_model(gateway, name))


def _model(gateway: Gateway, name: str) -> dict[str, Any]:
    created = datetime.fromtimestamp(gateway.model.created, UTC)
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "max_input_tokens": gateway.max_model_len,
    }
