"""Is a thinking block that comes back one that we signed?

Clients keep the signature with the block and return both. It only tells an edited or foreign block
from one of ours: either is taken, since the thinking is the caller's own text, and counted.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Literal

Verdict = Literal["valid", "missing", "wrong"]


class Signatures:
    """Signs thinking with one key."""

    def __init__(self, key: bytes):
        self._key = key

    def sign(self, thinking: str) -> str:
        """URL-safe text of 43 characters."""
        data = thinking.encode("utf-8", errors="replace")
        digest = hmac.digest(self._key, data, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def verdict(self, block: Mapping[str, Any]) -> Verdict:
        """On one thinking block of a request."""
        thinking, signature = block.get("thinking"), block.get("signature")
        if not isinstance(signature, str) or not signature:
            return "missing"
        if not isinstance(thinking, str) or not signature.isascii():
            return "wrong"
        return "valid" if hmac.compare_digest(self.sign(thinking), signature) else "wrong"
