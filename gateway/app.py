"""Which path leads where, and through what?"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.errors import ApiError
from gateway.http import info as info_api
from gateway.http.auth import ApiKeys, AuthMiddleware
from gateway.http.context import Gateway
from gateway.http.docs_page import docs_page, request_body, set_openapi
from gateway.http.edge import BodyLimit, EdgeMiddleware, http_error
from gateway.http.host_guard import Cors, HostGuard, Trust
from gateway.openai.chat import chat_completions
from gateway.openai.completions import completions
from gateway.openai.models import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from gateway.openai.tokenize import detokenize, tokenize

_GET: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("/v1/models", info_api.list_models, "models"),
    ("/v1/models/{model_id:path}", info_api.get_model, "models"),
    ("/livez", info_api.livez, "operation"),
    ("/readyz", info_api.readyz, "operation"),
    ("/health", info_api.health, "operation"),
    ("/metrics", info_api.metrics, "operation"),
    ("/version", info_api.version, "operation"),
)
_POST: tuple[tuple[str, Callable[..., Any], type], ...] = (
    ("/v1/chat/completions", chat_completions, ChatRequest),
    ("/v1/text/chat/completions", chat_completions, ChatRequest),
    ("/v1/completions", completions, CompletionRequest),
    ("/tokenize", tokenize, TokenizeRequest),
    ("/detokenize", detokenize, DetokenizeRequest),
)


def build_app(gateway: Gateway) -> FastAPI:
    """The ASGI application."""
    config = gateway.config
    keys = ApiKeys(config.api_key, config.key_file)
    trust = Trust(hosts=config.allowed_host, origins=config.cors_origin)
    app = FastAPI(
        title="ExpertMesh",
        version=info_api.VERSION,
        docs_url=None,  # FastAPI's page loads its scripts from the internet
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Cors, trust=trust),
            Middleware(EdgeMiddleware),
            Middleware(
                HostGuard,
                trust=trust,
                is_loopback=config.listen_address.is_loopback,
                has_keys=keys.required,
            ),
            Middleware(AuthMiddleware, keys=keys),
            Middleware(BodyLimit, limits=gateway.limits),
        ],
    )
    app.state.gateway = gateway
    for path, endpoint, tag in _GET:
        app.add_api_route(path, endpoint, methods=["GET"], tags=[tag], summary=endpoint.__doc__)
    for path, endpoint, model in _POST:
        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            tags=["text"],
            summary=endpoint.__doc__,
            openapi_extra=request_body(model),
        )
    app.add_api_route("/docs", docs_page, methods=["GET"], include_in_schema=False)
    app.add_api_route(
        "/", lambda: RedirectResponse("/docs"), methods=["GET"], include_in_schema=False
    )
    set_openapi(app, [model for _, _, model in _POST])
    app.add_exception_handler(HTTPException, _routing_error)
    app.add_exception_handler(ApiError, _api_error)
    return app


async def _routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_error(error).response()


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()
