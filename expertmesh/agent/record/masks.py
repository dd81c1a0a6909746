"""What in a trace is secret? Known values, and what looks like a key."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "[masked]"
_MIN_CHARS = 8
_SECRET_NAME = re.compile(
    r"(KEYS?|TOKENS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_\d+)?$"
)
_LOOKS_SECRET = re.compile(
    r"""
    \bsk-[\w-]{16,} | \bgh[pousr]_\w{20,} | \bgithub_pat_\w{20,} | \bglpat-[\w-]{16,}
    | \bAKIA[0-9A-Z]{16}\b | \bAIza[\w-]{35} | \bxox[abprs]-[\w-]{10,} | \bhf_[A-Za-z0-9]{20,}
    | \bnpm_[A-Za-z0-9]{20,}
    | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}
    | (?<=Bearer\ )[\w.~+/=-]{8,}
    | (?<=://)[^\s/:@]+:[^\s/@]+(?=@)
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)


_BEGINNINGS = (
    *("sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AKIA", "AIza"),
    *("xox", "hf_", "npm_", "eyJ", "Bearer ", "://", "PRIVATE KEY"),
)
"""What looks secret has one of these: looking for them first takes a tenth of the time."""


class Masks:
    """Hides these values, and everything that looks like a key."""

    def __init__(self, secrets: Iterable[str | None] = ()):
        known = {one for one in secrets if one and len(one) >= _MIN_CHARS}
        # The longest first: one secret may begin with another.
        listed = "|".join(re.escape(one) for one in sorted(known, key=len, reverse=True))
        self._known = re.compile(listed) if known else None

    def hide(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        if any(one in text for one in _BEGINNINGS):
            text = _LOOKS_SECRET.sub(MASK, text)
        return text

    def hide_in(self, value: Any) -> Any:
        """The same in every string of a JSON value, keys of objects included."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, Mapping):
            return {self.hide(str(key)): self.hide_in(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide_in(item) for item in value]
        return value


def secrets_of(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Values of the variables whose names say that they are secret."""
    return [value for name, value in environment.items() if _SECRET_NAME.search(name.upper())]
