"""GET /api/tags, /api/ps, /api/version and POST /api/show: which model is served, and what is told?

Nothing about files: sizes and digests are empty.
"""

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.http.context import Gateway
from gateway.http.requests import counted, gateway_of, json_response, read_object
from gateway.http.typed_body import parse_model
from gateway.ollama.fields import OllamaShowRequest

API_VERSION = "0.12.6"
"""Of the API that this follows: clients ask for a least one."""
_TAG = ":latest"
_NEVER = "9999-12-31T23:59:59Z"


def check_name(gateway: Gateway, name: Any) -> None:
    """Raises RequestError unless it is a served name; clients may add a tag to it."""
    bare = name.removesuffix(_TAG) if isinstance(name, str) else name
    gateway.check_model(name if name in gateway.model.names else bare)


async def list_models(request: Request) -> Response:
    """Every name under which the model is served."""
    gateway = gateway_of(request)
    return json_response({"models": [_model(gateway, name) for name in gateway.model.names]})


async def running_models(request: Request) -> Response:
    """The same: what is served is loaded, and stays."""
    gateway = gateway_of(request)
    running = {
        "expires_at": _NEVER,
        "size_vram": 0,
        "context_length": gateway.max_model_len,
    }
    models = [{**_model(gateway, name), **running} for name in gateway.model.names]
    return json_response({"models": models})


async def version(request: Request) -> Response:
    """Which version of Ollama's API this follows."""
    return json_response({"version": API_VERSION})


async def show(request: Request) -> Response:
    """What the model can do, and its context."""
    with counted(request):
        gateway = gateway_of(request)
        fields = parse_model(OllamaShowRequest, await read_object(request, gateway.limits))
        check_name(gateway, fields.model or fields.name)
        family = gateway.model.config.model_type
        defaults = vars(gateway.model.defaults)
        return json_response(
            {
                "modelfile": "",
                "license": "",
                "template": "{{ .Prompt }}",
                "parameters": "\n".join(
                    f"{name} {defaults[name]}" for name in ("temperature", "top_p", "top_k")
                ),
                "details": _details(gateway),
                "model_info": {
                    "general.architecture": family,
                    "general.basename": gateway.model.name,
                    f"{family}.context_length": gateway.max_model_len,
                },
                "capabilities": ["completion", "tools", "thinking"],
                "modified_at": _modified(gateway),
            }
        )


def _model(gateway: Gateway, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": _modified(gateway),
        "size": 0,
        "digest": "",
        "details": _details(gateway),
    }


def _details(gateway: Gateway) -> dict[str, Any]:
    family = gateway.model.config.model_type
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": "",
    }


def _modified(gateway: Gateway) -> str:
    return datetime.fromtimestamp(gateway.model.created, UTC).isoformat().replace("+00:00", "Z")
