"""Which endpoint serves each path, and through which middleware?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.anthropic.dialect import ANTHROPIC
from gateway.http import info
from gateway.http.auth import ApiKeys, AuthMiddleware
from gateway.http.context import Gateway
from gateway.http.dialect import Dialect, Endpoint
from gateway.http.docs_page import docs_page, request_body, set_openapi
from gateway.http.edge import BodyLimit, EdgeMiddleware, HeadAsGet
from gateway.http.errors import refusing, routing_error
from gateway.http.host_guard import Cors, HostGuard, Trust
from gateway.ollama.dialect import OLLAMA
from gateway.openai.dialect import OPENAI
from gateway.responses.dialect import RESPONSES
from gateway.sglang.dialect import SGLANG

DIALECTS = (OPENAI, ANTHROPIC, RESPONSES, OLLAMA, SGLANG)
"""The APIs that are served. The first one's error format is also that of all other paths."""

CHANGING = ["POST", "PUT", "PATCH", "DELETE"]

_OPERATION: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("/livez", info.livez),
    ("/readyz", info.readyz),
    ("/health", info.health),
    ("/metrics", info.metrics),
    ("/version", info.version),
)


def build_app(gateway: Gateway, dialects: Sequence[Dialect] = DIALECTS) -> FastAPI:
    """The ASGI application."""
    config = gateway.config
    keys = ApiKeys(config.api_key, config.key_file)
    trust = Trust(hosts=config.allowed_host, origins=config.cors_origin)
    app = FastAPI(
        title="ExpertMesh",
        version=info.VERSION,
        docs_url=None,  # FastAPI's page loads its scripts from the internet
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Cors, trust=trust),
            Middleware(EdgeMiddleware, dialects=dialects),
            Middleware(
                HostGuard,
                trust=trust,
                is_loopback=config.listen_address.is_loopback,
                has_keys=keys.required,
            ),
            Middleware(AuthMiddleware, keys=keys),
            Middleware(BodyLimit, limits=gateway.limits),
            Middleware(HeadAsGet),
        ],
    )
    app.state.gateway = gateway
    gets = [(path, endpoint, "models") for path, endpoint in _shared_gets(dialects)]
    gets += [(path, endpoint, "operation") for path, endpoint in _OPERATION]
    for path, endpoint, tag in gets:
        app.add_api_route(path, endpoint, methods=["GET"], tags=[tag], summary=endpoint.__doc__)
    posts = [post for one in dialects for post in one.posts]
    for path, endpoint, model in posts:
        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            tags=["text"],
            summary=endpoint.__doc__,
            openapi_extra=None if model is None else request_body(model),
        )
    for path, endpoint in (delete for one in dialects for delete in one.deletes):
        app.add_api_route(
            path, endpoint, methods=["DELETE"], tags=["text"], summary=endpoint.__doc__
        )
    for path, why in (refusal for one in dialects for refusal in one.refusals):
        app.add_api_route(path, refusing(why), methods=CHANGING, include_in_schema=False)
    app.add_api_route("/docs", docs_page, include_in_schema=False)
    app.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    set_openapi(app, [model for _, _, model in posts if model is not None])
    app.add_exception_handler(HTTPException, routing_error)
    return app


def _shared_gets(dialects: Sequence[Dialect]) -> Iterator[tuple[str, Endpoint]]:
    """Each path once. Where several dialects have it, the one whose request it is answers."""
    endpoints: dict[str, dict[Dialect, Endpoint]] = {}
    for dialect in dialects:
        for path, endpoint in dialect.gets:
            endpoints.setdefault(path, {})[dialect] = endpoint
    for path, of_dialect in endpoints.items():
        yield path, _by_dialect(of_dialect)


def _by_dialect(of_dialect: Mapping[Dialect, Endpoint]) -> Endpoint:
    first = next(iter(of_dialect.values()))

    async def endpoint(request: Request) -> Response:
        answer: Response = await of_dialect.get(request.state.dialect, first)(request)
        return answer

    endpoint.__doc__ = first.__doc__
    return endpoint
