"""What does every endpoint need? One object, built once, passed in."""

from collections import defaultdict
from dataclasses import dataclass, field

from gateway.config import GatewayConfig
from gateway.errors import model_not_found, not_ready, overloaded
from gateway.generate.choice_streams import ChoiceStreams
from gateway.generate.drain import Drain
from gateway.generate.pool import AttentionPool
from gateway.limits import Limits
from gateway.metrics import GatewayMetrics, StatusLine
from gateway.openai.field_rules import FieldRules
from gateway.text.model_files import ModelFiles
from gateway.text.prompt_encoder import PromptEncoder


class KeySlots:
    """Requests in flight for each key."""

    def __init__(self, limit: int):
        self._limit = limit
        self._of_key: defaultdict[str, Drain] = defaultdict(Drain)

    def acquire(self, key_id: str) -> None:
        """Raises ApiError 429 when the key has as many requests as it may."""
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
class Gateway:
    """The gateway's parts, and what is running."""

    config: GatewayConfig
    limits: Limits
    model: ModelFiles
    pool: AttentionPool
    encoder: PromptEncoder
    metrics: GatewayMetrics
    status_line: StatusLine
    slots: KeySlots
    rules: FieldRules = field(default_factory=FieldRules)
    active: set[ChoiceStreams] = field(default_factory=set)
    stopping: bool = False

    def check_model(self, name: object) -> None:
        """Raises ApiError 404 unless it is a served name."""
        if not isinstance(name, str) or name not in self.model.names:
            raise model_not_found(name)

    def readiness(self) -> tuple[bool, str]:
        """(ready, reason when not)."""
        if self.stopping:
            return False, "the gateway is stopping"
        return self.pool.readiness()

    def require_ready(self) -> int:
        """The context in tokens. Raises ApiError 503 with the reason when nothing can be served."""
        if self.stopping:
            raise not_ready("the gateway is stopping")
        self.pool.pick()
        return self.max_model_len

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and output together."""
        return self.pool.max_model_len() or self.model.config.max_position_embeddings

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids at which generation stops by default."""
        return self.pool.default_stop_ids() or self.model.eos_token_ids
