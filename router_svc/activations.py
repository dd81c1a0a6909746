"""How many tokens went to each expert, over the whole mesh?

Attention services report what they routed since their last status; the sums are
kept here for the metrics, the ops page and, later, for placing replicas.
"""

from typing import Any

from protos import router_pb2
from router_svc.member import Model

MAX_TOKENS_PER_REPORT = 2**40


class Activations:
    """Token counts per (layer, expert) since the router's start."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._tokens: list[list[int]] = []

    def add(self, model: Model, status: router_pb2.MemberStatus) -> dict[int, int]:
        """Add a report; returns the tokens added per layer.

        Raises ValueError, adding nothing, on a layer or expert the model does not have.
        """
        checked = [_checked(model, entry) for entry in status.activations]
        if not checked:
            return {}
        if model != self._model:
            self._tokens = [[0] * model.num_experts for _ in range(model.num_layers)]
            self._model = model
        added: dict[int, int] = {}
        for layer_idx, pairs in checked:
            row = self._tokens[layer_idx]
            for expert_id, tokens in pairs:
                row[expert_id] += tokens
                added[layer_idx] = added.get(layer_idx, 0) + tokens
        return added

    def tokens(self) -> list[list[int]]:
        """[layer][expert], empty before the first report; not to be changed."""
        return self._tokens

    def page(self) -> dict[str, Any]:
        """The full matrix for `GET /experts/load`; may be called from another thread."""
        model, rows = self._model, self._tokens
        return {
            "checkpoint_id": model.checkpoint_id if model else "",
            "num_layers": model.num_layers if model else 0,
            "num_experts": model.num_experts if model else 0,
            "tokens": [list(row) for row in rows],
        }


def _checked(model: Model, entry: router_pb2.LayerActivations) -> tuple[int, list[tuple[int, int]]]:
    where = f"status.activations: layer {entry.layer_idx}"
    if entry.layer_idx >= model.num_layers:
        raise ValueError(f"{where}: the model has {model.num_layers} layers")
    if len(entry.expert_ids) != len(entry.token_counts):
        raise ValueError(f"{where}: as many token_counts as expert_ids are needed")
    if len(entry.expert_ids) > model.num_experts:
        raise ValueError(f"{where}: the model has {model.num_experts} experts")
    pairs = list(zip(entry.expert_ids, entry.token_counts, strict=True))
    for expert_id, tokens in pairs:
        if expert_id >= model.num_experts:
            raise ValueError(f"{where}: expert {expert_id} of {model.num_experts}")
        if tokens > MAX_TOKENS_PER_REPORT:
            raise ValueError(f"{where}: {tokens} tokens in one report")
    return entry.layer_idx, pairs
