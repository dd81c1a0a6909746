"""What is a tool, and what does it return?"""

import hashlib
import time
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

EXCERPT_CHARS = 300


class Status(Enum):
    """How a call ended. Only OK means that it did what it was asked."""

    OK = "ok"
    FAILED = "failed"
    REFUSED = "refused"
    TIMED_OUT = "timed out"


class Effect(Enum):
    """What a tool can do to the world; approval asks about it."""

    READS = "reads"
    WRITES = "writes"
    RUNS = "runs"
    WEB = "web"


@dataclass(frozen=True)
class Source:
    """Where a piece of a result comes from, so that an answer can cite it."""

    place: str
    """A URL, "file:lines" or a command."""
    excerpt: str
    sha256: str
    """Of all the text that was read there, not of the excerpt."""
    when: float
    """`time.time()`."""

    @classmethod
    def of(cls, place: str, text: str) -> "Source":
        """`text` was read at `place` just now."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(place, text[:EXCERPT_CHARS], digest, time.time())


@dataclass(frozen=True)
class Result:
    """What the model reads after a call."""

    status: Status
    text: str
    sources: tuple[Source, ...] = ()
    is_computed: bool = False
    """By the model's own code. That is kept among the sources, but the model is not told its
    number: small models take that for a part of what was computed."""

    @property
    def cited(self) -> tuple[Source, ...]:
        """Those whose numbers the model is told."""
        return () if self.is_computed else self.sources


class Tool(Protocol):
    """One tool. `call` gets arguments that fit `parameters` and raises nothing for expected
    faults: it returns FAILED, with a text that helps the model to do better."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments, of the subset in schema.py."""

    @property
    def effect(self) -> Effect: ...

    async def call(self, arguments: dict[str, Any]) -> Result: ...


def search_schema(found: str, *, usual: int, most: int) -> Any:
    """The schema of a search's arguments. `found`: what it finds, in the plural."""
    limit = {
        "type": "integer",
        "minimum": 1,
        "maximum": most,
        "description": f"{found} at most; default {usual}",
    }
    query = {"type": "string", "minLength": 1, "maxLength": 500}
    return object_schema({"query": query}, {"limit": limit})


def object_schema(required: dict[str, Any], optional: dict[str, Any] | None = None) -> Any:
    """The schema of a tool's arguments: name -> schema of the value; no other names."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }
