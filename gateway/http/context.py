"""What does every endpoint need? One object, built once, passed in."""

import secrets
from collections import defaultdict
from dataclasses import dataclass, field

from gateway.config import GatewayConfig
from gateway.errors import overloaded
from gateway.generate.core import Core
from gateway.generate.drain import Drain
from gateway.http.background import Background
from gateway.http.signatures import Signatures
from gateway.http.thinking_seal import ThinkingSeal, process_keys
from gateway.metrics import GatewayMetrics
from gateway.store.response_store import ResponseStore


class KeySlots:
    """Requests in flight for each key."""

    def __init__(self, limit: int):
        self._limit = limit
        self._of_key: defaultdict[str, Drain] = defaultdict(Drain)

    def acquire(self, key_id: str) -> None:
        """Raises RequestError when the key has as many requests as it may."""
        slots = self._of_key[key_id]
        if slots.inside >= self._limit:
            raise overloaded(
                f"{self._limit} requests of this client are in flight already, the most allowed "
                "(--max-concurrent)",
                slots.wait_s(1),
            )
        slots.enter()

    def release(self, key_id: str) -> None:
        self._of_key[key_id].leave(served=True)


@dataclass(kw_only=True)
class Gateway(Core):
    """The core as it is served over HTTP."""

    config: GatewayConfig
    metrics: GatewayMetrics
    slots: KeySlots
    store: ResponseStore | None = None
    """Where answers are kept; None: nowhere."""
    background: Background
    """Answers that are made while nobody waits."""
    signatures: Signatures = field(default_factory=lambda: Signatures(secrets.token_bytes(32)))
    """Of thinking blocks, for dialects that have them."""
    seal: ThinkingSeal = field(default_factory=lambda: ThinkingSeal(process_keys()))
    """Of thinking that clients keep without reading it."""
    ignored_fields: set[str] = field(default_factory=set)
    """Names of fields that no dialect knew; each was logged once."""
