"""Get one page: within a size, a time and a number of redirects, from checked addresses only."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from expertmesh.agent.web.decoding import (
    ACCEPTED,
    BadEncodingError,
    TooLargeError,
    read_body,
)
from expertmesh.agent.web.guard import Guard, NoSuchHostError, RefusedError
from expertmesh.agent.web.urls import BadUrlError, WebUrl, join_url, parse_url

USER_AGENT = "Mozilla/5.0 (compatible; expertmesh-agent)"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchError(Exception):
    """A page that could not be had; the text is for the model."""


@dataclass(frozen=True, kw_only=True)
class FetchLimits:
    """What one page may take."""

    max_bytes: int = 5 << 20
    """Of the body, compressed and not."""
    time_s: float = 20.0
    """From the first resolution to the last byte, redirects included."""
    max_redirects: int = 10
    connect_s: float = 5.0
    """For each address of a host."""


@dataclass(frozen=True)
class Fetched:
    """An answer of a server, whatever its status."""

    url: str
    """The last of the redirects."""
    status: int
    content_type: str
    """As the server has it, with its parameters; "" if it has none."""
    body: bytes


class Fetcher:
    """Gets pages through one guard."""

    def __init__(
        self,
        guard: Guard,
        limits: FetchLimits = FetchLimits(),
        tls: ssl.SSLContext | None = None,
    ):
        self._guard = guard
        self._limits = limits
        self._tls = tls

    async def get(self, text: str) -> Fetched:
        """Raises BadUrlError, RefusedError, FetchError and TimeoutError."""
        url = parse_url(text)
        async with asyncio.timeout(self._limits.time_s):
            for _ in range(self._limits.max_redirects + 1):
                answer = await self._once(url)
                if isinstance(answer, Fetched):
                    return answer
                url = answer
        raise FetchError(f"more than {self._limits.max_redirects} redirects, the last to {url}")

    async def _once(self, url: WebUrl) -> Fetched | WebUrl:
        """The page, or where it has moved to."""
        try:
            async with self._answer(url) as response:
                location = response.headers.get("location")
                if response.status_code in _REDIRECTS and location is not None:
                    return join_url(url, location)
                encoding = response.headers.get("content-encoding", "")
                body = await read_body(response.aiter_raw(), encoding, self._limits.max_bytes)
                content_type = response.headers.get("content-type", "")
                return Fetched(str(url), response.status_code, content_type, body)
        except (NoSuchHostError, TooLargeError, BadEncodingError) as error:
            raise FetchError(str(error)) from None
        except BadUrlError as error:
            raise RefusedError(f"{url} redirects: {error}") from None
        except httpx.HTTPError as error:
            raise FetchError(f"{url}: {_said(error)}") from None

    @asynccontextmanager
    async def _answer(self, url: WebUrl) -> AsyncIterator[httpx.Response]:
        """The head of an answer, from the first of the host's addresses that can be reached.

        Each request has a client of its own: a kept connection is one to an address, and another
        host at this address would be asked through it under the first one's certificate.
        """
        addresses = await self._guard.addresses(url.host, url.port)
        async with httpx.AsyncClient(
            verify=self._certificates(url),
            trust_env=False,  # a proxy of the environment would resolve names by itself
            timeout=httpx.Timeout(self._limits.time_s, connect=self._limits.connect_s),
        ) as client:
            for address in addresses:
                try:
                    response = await client.send(_request(client, url, address), stream=True)
                    break
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if address == addresses[-1]:
                        raise
            try:
                yield response
            finally:
                await response.aclose()

    def _certificates(self, url: WebUrl) -> ssl.SSLContext | bool:
        """Made once, and only for https: it reads all the system's certificates."""
        if url.scheme == "http":
            return False
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return self._tls


def _request(client: httpx.AsyncClient, url: WebUrl, address: str) -> httpx.Request:
    """To the address, but for the host: in its Host header and in the name asked of TLS."""
    target = httpx.URL(
        scheme=url.scheme, host=address, port=url.port, raw_path=url.path.encode("ascii")
    )
    headers = {
        "Host": url.authority,
        "User-Agent": USER_AGENT,
        "Accept": "text/html,text/plain,application/json,*/*;q=0.5",
        "Accept-Encoding": ACCEPTED,
    }
    request = client.build_request("GET", target, headers=headers)
    request.extensions = {**request.extensions, "sni_hostname": url.host}
    return request


def _said(error: httpx.HTTPError) -> str:
    """httpx's own words name the address; many of its timeouts have none."""
    if isinstance(error, httpx.TimeoutException):
        return "the server did not answer in time"
    return str(error) or type(error).__name__
