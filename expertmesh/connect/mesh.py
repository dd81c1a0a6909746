"""What do all clients have to know of a mesh? Its address, its model, and how its key is given."""

import re
from dataclasses import dataclass, field

from expertmesh.clients.chat import server_root

MOST_OUTPUT = 32_768
"""Tokens of an answer, its thinking included, for which clients keep room by default."""
LEAST_CONTEXT = 1024
NO_KEY = "none"
"""What clients get that insist on a key where none is wanted."""
PROVIDER = "expertmesh"
"""Under this name the mesh is in the files of those clients that know several servers."""

_ADDRESS = re.compile(r"https?://[^\s/?#\"'\\]+(/[^\s?#\"'\\]*)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODEL = re.compile(r"[^\s\"'\\\x00-\x1f\x7f]+")


@dataclass(frozen=True, kw_only=True)
class Key:
    """How clients present themselves, where the mesh wants a key."""

    variable: str = "EXPERTMESH_API_KEY"
    """The environment variable in which they find the key."""
    secret: str | None = field(default=None, repr=False)
    """The key itself; only to be written into files, and only where that was asked for."""

    def __post_init__(self) -> None:
        if not _VARIABLE.fullmatch(self.variable):
            raise ValueError(
                f"key_env {self.variable!r}: the name of a variable has letters, digits and _"
            )
        if self.secret is not None and not (self.secret.isascii() and self.secret.isprintable()):
            raise ValueError("api_key: printable ASCII characters only")


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """One server, as clients see it."""

    base_url: str
    """With or without the trailing /v1."""
    model: str
    context: int
    """Tokens of prompt and answer together."""
    max_output: int = 0
    """Tokens of one answer, thinking included; 0: a quarter of the context, at most 32,768."""
    timeout_s: int = 1800
    """How long clients wait for more of an answer."""
    key: Key | None = None
    """None where no key is wanted."""

    def __post_init__(self) -> None:
        if not _ADDRESS.fullmatch(self.root):
            raise ValueError(f"base_url {self.base_url!r}: not an http:// or https:// address")
        if not _MODEL.fullmatch(self.model):
            raise ValueError(f"model_name {self.model!r}: no spaces, quotes or backslashes")
        if self.context < LEAST_CONTEXT:
            raise ValueError(f"context: at least {LEAST_CONTEXT} tokens, got {self.context}")
        if not 0 <= self.max_output < self.context:
            raise ValueError(
                f"max_tokens: 1 to less than the context of {self.context}, got {self.max_output}"
            )
        if not 1 <= self.timeout_s <= 86_400:
            raise ValueError(f"timeout: 1 to 86400 seconds, got {self.timeout_s}")

    @property
    def root(self) -> str:
        """Without /v1."""
        return server_root(self.base_url)

    @property
    def api(self) -> str:
        """With /v1, as clients of OpenAI's API want it."""
        return f"{self.root}/v1"

    @property
    def output(self) -> int:
        """Tokens of one answer."""
        return self.max_output or min(MOST_OUTPUT, self.context // 4)

    @property
    def timeout_ms(self) -> int:
        return 1000 * self.timeout_s
