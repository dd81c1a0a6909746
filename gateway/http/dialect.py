"""What must an API define to be served here? Its paths, its answers and the shape of its errors."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel

from gateway.errors import RequestError
from gateway.generate.choice_streams import Update

Endpoint = Callable[..., Any]

KEEPALIVE = b": keep-alive\n\n"
"""A comment, which every reader of server-sent events skips."""


class ReplyWriter(Protocol):
    """How updates become one API's answer, streamed or whole."""

    def chunks(self, update: Update) -> bytes:
        """Events, or whatever else the stream consists of, for one update."""

    def closing(self) -> bytes:
        """Events after the last choice ended."""

    def failed(self, error: RequestError, request_id: str) -> bytes:
        """The last events of a stream that has begun."""

    def keepalive(self) -> bytes:
        """What is sent when nothing came for a while."""

    def collect(self, update: Update) -> None:
        """Keep one update for `whole`."""

    def whole(self) -> bytes:
        """The answer as one JSON object."""


class ErrorShape(Protocol):
    """How one API reports errors."""

    def status(self, error: RequestError) -> int:
        """Of the response."""

    def body(self, error: RequestError, request_id: str | None) -> bytes:
        """The JSON object; no id when the request could not be read."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a path answers, for its description."""

    whole: type[BaseModel] | None = None
    """As JSON."""
    event: type[BaseModel] | None = None
    """The data of each server-sent event, where the answer may be streamed."""
    is_text: bool = False
    statuses: Sequence[int] = (200,)
    description: str = "The answer"


@dataclass(frozen=True, kw_only=True)
class Query:
    """A parameter after a path, for its description."""

    name: str
    schema: Mapping[str, Any]
    description: str


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One API."""

    errors: ErrorShape
    prefixes: tuple[str, ...] = ()
    """Paths, and those below them, that are its own; see `dialect_of`."""
    header: bytes = b""
    """A header that only its clients send: it decides about paths that are nobody's or shared."""
    request_id_header: str = ""
    """Where its clients look for the request's id, beside x-request-id."""
    stream_type: str = "text/event-stream"
    """Content type of streamed answers."""
    gets: Sequence[tuple[str, Endpoint]] = ()
    """What it says about its models, and what it keeps."""
    posts: Sequence[tuple[str, Endpoint, type[BaseModel] | None]] = ()
    """(path, endpoint, what the body holds; None: nothing)."""
    deletes: Sequence[tuple[str, Endpoint, Answer]] = ()
    """What it forgets when it is told to, and what it says then."""
    refusals: Sequence[tuple[str, str]] = ()
    """Paths that its clients call to change the server, and why nothing is changed."""
    answers: Mapping[str, Answer] = field(default_factory=dict, compare=False)
    """By path."""
    queries: Mapping[str, Sequence[Query]] = field(default_factory=dict, compare=False)
    """Of its gets, by path."""
    error_model: type[BaseModel] | None = None
    """What `errors` writes."""


def dialect_of(path: str, headers: Collection[bytes], dialects: Sequence[Dialect]) -> Dialect:
    """Whose request this is: by its path, by the names of its headers, else the first dialect's."""
    of_prefix = {f"{prefix}/": one for one in dialects for prefix in one.prefixes}
    by_path = (one for prefix, one in of_prefix.items() if f"{path}/".startswith(prefix))
    by_header = (one for one in dialects if one.header in headers)
    return next(by_path, None) or next(by_header, dialects[0])
