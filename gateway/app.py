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
from gateway.http.api_document import Operation, api_document, get, own
from gateway.http.auth import PUBLIC_PATHS, ApiKeys, AuthMiddleware
from gateway.http.context import Gateway
from gateway.http.dialect import Answer, Dialect, Endpoint
from gateway.http.docs_page import docs_page
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

_OPERATION: tuple[tuple[str, Callable[..., Any], Answer], ...] = (
    ("/livez", info.livez, Answer(is_text=True)),
    ("/readyz", info.readyz, Answer(is_text=True, statuses=(200, 503))),
    ("/health", info.health, Answer(whole=info.Health, statuses=(200, 503))),
    ("/metrics", info.metrics, Answer(is_text=True)),
    ("/version", info.version, Answer(whole=info.Versions)),
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
    operations = list(_operations(dialects))
    for one in operations:
        app.add_api_route(one.path, one.endpoint, methods=[one.method.upper()])
    for path, why in (refusal for one in dialects for refusal in one.refusals):
        app.add_api_route(path, refusing(why), methods=CHANGING, include_in_schema=False)
    app.add_api_route("/docs", docs_page, include_in_schema=False)
    app.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    document = api_document(
        operations, title=app.title, version=app.version, has_keys=keys.required
    )
    app.openapi = lambda: document  # type: ignore[method-assign]
    app.add_exception_handler(HTTPException, routing_error)
    return app


def _operations(dialects: Sequence[Dialect]) -> Iterator[Operation]:
    """Each path once. Where several dialects have it, the one whose request it is answers."""
    endpoints: dict[str, dict[Dialect, Endpoint]] = {}
    for dialect in dialects:
        for path, endpoint in dialect.gets:
            endpoints.setdefault(path, {})[dialect] = endpoint
    for path, of_dialect in endpoints.items():
        yield get(list(of_dialect), path, _by_dialect(of_dialect))
    for path, endpoint, answer in _OPERATION:
        yield Operation(
            path=path,
            method="get",
            endpoint=endpoint,
            tag="operation",
            answers=[answer],
            errors=[one.error_model for one in dialects if one.error_model],
            needs_key=path not in PUBLIC_PATHS,
        )
    for dialect in dialects:
        for path, endpoint, body in dialect.posts:
            yield own(dialect, "post", path, endpoint, body)
        for path, endpoint, answer in dialect.deletes:
            yield own(dialect, "delete", path, endpoint, answer=answer)


def _by_dialect(of_dialect: Mapping[Dialect, Endpoint]) -> Endpoint:
    first = next(iter(of_dialect.values()))

    async def endpoint(request: Request) -> Response:
        answer: Response = await of_dialect.get(request.state.dialect, first)(request)
        return answer

    endpoint.__doc__ = first.__doc__
    return endpoint
