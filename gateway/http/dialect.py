"""What must an API define to be served here? Its paths, its answers and the shape of its errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from gateway.errors import RequestError
from gateway.generate.choice_streams import Update

Endpoint = Callable[..., Any]


class ReplyWriter(Protocol):
    """How updates become one API's answer, streamed or whole."""

    def chunks(self, update: Update) -> bytes:
        """Server-sent events for one update."""

    def closing(self) -> bytes:
        """Events after the last choice ended."""

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

    def event(self, error: RequestError, request_id: str) -> bytes:
        """The last server-sent event of a stream that has begun."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One API."""

    errors: ErrorShape
    prefixes: tuple[str, ...] = ()
    """Paths, and those below them, whose errors are told so; see `errors_at`."""
    gets: Sequence[tuple[str, Endpoint]] = ()
    """What it says about its models."""
    posts: Sequence[tuple[str, Endpoint, type[BaseModel]]] = ()
    """(path, endpoint, what the body holds)."""


def errors_at(path: str, dialects: Sequence[Dialect]) -> ErrorShape:
    """Who tells the errors of this path; the first dialect those of paths that are nobody's."""
    of_prefix = {f"{prefix}/": one.errors for one in dialects for prefix in one.prefixes}
    found = (errors for prefix, errors in of_prefix.items() if f"{path}/".startswith(prefix))
    return next(found, dialects[0].errors)
