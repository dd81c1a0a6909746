"""Where does a URL of a model or a page lead? One strict reading, from which all parts are made.

Parsers differ on odd URLs, and a check by one is worth nothing to a connection by another. So
whatever could be read in two ways is refused, and what is accepted is written anew.
"""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx

MAX_CHARS = 8192
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOWEST_FREE_PORT = 1024
_FORM = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?#]*)([^#]*)")
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NOT_IN_HOST = re.compile(r"[^a-z0-9._\x80-\U0010ffff-]")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DOTS = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": "."})


class BadUrlError(ValueError):
    """A URL that is not fetched; the text says what is wrong with it."""


@dataclass(frozen=True)
class WebUrl:
    """A URL whose every part is unambiguous."""

    scheme: str
    host: str
    """A name in ASCII and lower case without a final dot, or an IP address without brackets."""
    port: int
    path: str
    """From the first slash on, with the query."""

    @property
    def authority(self) -> str:
        """As in the Host header: with brackets, and without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(text: str) -> WebUrl:
    """Raises BadUrlError. The fragment is dropped."""
    text = text.strip(" \t\r\n")
    if len(text) > MAX_CHARS:
        raise BadUrlError(f"the URL has {len(text)} characters; at most {MAX_CHARS} are allowed")
    if _AMBIGUOUS.search(text):
        raise BadUrlError("the URL has a space, a backslash or a control character in it")
    form = _FORM.fullmatch(text.partition("#")[0])
    if form is None:
        raise BadUrlError(f"{text[:100]!r} is not a URL; write http://... or https://...")
    scheme = form[1].lower()
    if scheme not in _DEFAULT_PORTS:
        raise BadUrlError(f"only http and https are allowed, not {scheme[:20]}")
    host, port = parse_authority(form[2], _DEFAULT_PORTS[scheme])
    return WebUrl(scheme, host, port, _path(form[3]))


def join_url(base: WebUrl, location: str) -> WebUrl:
    """Where a redirect leads. Raises BadUrlError."""
    if "\\" in location:
        raise BadUrlError("the redirect has a backslash in it")
    try:
        return parse_url(urljoin(str(base), location.strip(" \t\r\n")))
    except BadUrlError:
        raise
    except ValueError as error:  # urljoin, about brackets
        raise BadUrlError(f"the redirect is not a URL: {error}") from None


def parse_authority(text: str, default_port: int | None) -> tuple[str, int]:
    """(host, port) of "host", "host:port" or "[address]:port". Raises BadUrlError."""
    if "@" in text:
        raise BadUrlError("the URL has a user name or password in it; leave it out")
    if "%" in text:
        raise BadUrlError("the host has a % in it; write it without")
    if text.startswith("["):
        inside, closing, rest = text[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            raise BadUrlError(f"the host {text[:60]!r} is not an address in brackets")
        host = _address_v6(inside)
    else:
        name, colon, digits = text.partition(":")
        rest = colon + digits
        host = normal_host(name)
    return host, _port(rest, default_port)


def normal_host(name: str) -> str:
    """A host's name in ASCII and lower case, or its IPv4 address. Raises BadUrlError."""
    if not name.isascii():
        name = _ascii_of(name)
    host = name.lower().removesuffix(".")
    labels = host.split(".")
    if not host or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadUrlError(f"{name[:60]!r} is not the name of a host")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise BadUrlError(
                f"{name[:60]!r} is an odd way to write an address; write four decimal numbers"
            ) from None
    return host


def _ascii_of(name: str) -> str:
    """An international name as the DNS has it."""
    folded = unicodedata.normalize("NFKC", name).translate(_DOTS).lower()
    try:
        if _NOT_IN_HOST.search(folded):  # a full-width slash has become a slash
            raise BadUrlError
        return httpx.URL(f"http://{folded}/").raw_host.decode("ascii")
    except (ValueError, httpx.InvalidURL):
        raise BadUrlError(f"{name[:60]!r} is not the name of a host") from None


def _address_v6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise BadUrlError(f"{text[:60]!r} is not an IPv6 address") from None


def _port(rest: str, default: int | None) -> int:
    """`rest` is what follows the host: "" or ":port"."""
    digits = rest.removeprefix(":")
    if not digits:
        if default is None:
            raise BadUrlError("the port is missing")
        return default
    if not re.fullmatch(r"[0-9]{1,5}", digits) or not 1 <= int(digits) <= 65535:
        raise BadUrlError(f"the port is {digits[:20]!r}; allowed are 1 to 65535")
    return int(digits)


def is_web_port(port: int) -> bool:
    """80, 443 and those that need no privileges: no mail, name or login servers."""
    return port in _DEFAULT_PORTS.values() or port >= _LOWEST_FREE_PORT


def _path(text: str) -> str:
    """Percent-encoded where it has to be; what is encoded stays as it is."""
    path = text if text.startswith("/") else f"/{text}"
    return "".join(
        char if char.isascii() and char not in '"<>^`{|}' else _percent(char) for char in path
    )


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8"))
