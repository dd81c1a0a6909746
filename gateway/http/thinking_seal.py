"""How can a client keep an answer's thinking without reading or changing it?

It is encrypted (AES-256-GCM) for one tenant, and comes back with the next request. Gateways that
share a key file read what any of them has sealed; without one, a process reads only its own.
"""

import base64
import binascii
import secrets
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PREFIX = "em1."
"""Format and version."""
_NONCE_BYTES = 12
_PURPOSE = b"expertmesh thinking\0"


class ThinkingSeal:
    """Seals with the first key, and reads what any of them has sealed."""

    def __init__(self, keys: Callable[[], Sequence[bytes]]):
        """`keys`: the keys now, at least one, of 32 bytes each."""
        self._keys = keys

    def seal(self, tenant: str, thinking: str) -> str:
        """URL-safe text that only this tenant can have read."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        data = thinking.encode("utf-8", "replace")
        sealed = AESGCM(self._keys()[0]).encrypt(nonce, data, _bound_to(tenant))
        return _PREFIX + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, tenant: str, sealed: str) -> str | None:
        """The thinking; None if it was sealed with another key, for another tenant, or changed."""
        try:
            data = base64.b64decode(sealed.removeprefix(_PREFIX), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):  # ValueError: not ASCII
            return None
        if not sealed.startswith(_PREFIX) or len(data) <= _NONCE_BYTES:
            return None
        for key in self._keys():
            try:
                thinking = AESGCM(key).decrypt(
                    data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(tenant)
                )
            except InvalidTag:
                continue
            return thinking.decode()
        return None


def process_keys() -> Callable[[], Sequence[bytes]]:
    """One key that ends with the process."""
    keys = (secrets.token_bytes(32),)
    return lambda: keys


def _bound_to(tenant: str) -> bytes:
    return _PURPOSE + tenant.encode("utf-8", "replace")
