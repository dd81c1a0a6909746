"""HEAD wherever GET answers, and a list of models whose address ends with a slash."""

import httpx
import pytest

from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME
from tests.support.gateway.raw_http import exchange, status_of

ANTHROPIC = {"anthropic-version": "2023-06-01"}


def head(gateway: Harness, path: str) -> httpx.Response:
    return httpx.head(gateway.base_url + path, timeout=10, verify=False)


def paths(gateway: Harness) -> list[str]:
    api = gateway.get("/openapi.json").json()["paths"]
    return [path.replace("{model_id}", NAME) for path, methods in api.items() if "get" in methods]


def test_head_is_answered_as_get_is_without_a_body(gateway: Harness) -> None:
    for path in (*paths(gateway), "/", "/docs", "/openapi.json", "/v1/models/", "/v1/models/other"):
        got, headed = gateway.get(path), head(gateway, path)
        assert (headed.status_code, headed.content) == (got.status_code, b""), path
        for name in ("content-type", "location"):
            assert headed.headers.get(name) == got.headers.get(name), path
        if not path.startswith("/metrics"):  # which differ from one moment to the next
            assert headed.headers["content-length"] == got.headers["content-length"], path


def test_a_connection_goes_on_after_head(gateway: Harness) -> None:
    ask = b" /livez HTTP/1.1\r\nHost: localhost\r\n"
    reply = exchange(gateway, b"HEAD" + ask + b"\r\nGET" + ask + b"Connection: close\r\n\r\n")
    assert status_of(reply) == 200
    assert reply.count(b"HTTP/1.1 200") == 2
    assert reply.endswith(b"\r\n\r\nok\n")


def test_where_only_post_answers_head_is_405(gateway: Harness) -> None:
    assert head(gateway, "/v1/chat/completions").status_code == 405


@pytest.mark.parametrize("headers", [{}, ANTHROPIC], ids=["openai", "anthropic"])
def test_a_slash_after_models_changes_nothing(gateway: Harness, headers: dict[str, str]) -> None:
    with_slash = gateway.get("/v1/models/", headers=headers)
    assert with_slash.status_code == 200
    assert with_slash.json() == gateway.get("/v1/models", headers=headers).json()
    assert {model["id"] for model in with_slash.json()["data"]} == {NAME, "alias"}
