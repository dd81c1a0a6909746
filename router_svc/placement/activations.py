"""How much work does each expert cause in the whole mesh?

Attention services report what they routed since their last status. Two sums are kept:
tokens since the router's start, for the metrics and the heat map, and the recent work,
which halves every half-life, for placement.
"""

from typing import Any

from protos import router_pb2
from router_svc.members.member import Model
from rpc.mesh.work import ROWS_PER_EXPERT_READ

MAX_PER_REPORT = 2**40
_MAX_SCALE = 2.0**40


class Activations:
    """Per (layer, expert): tokens since the start, and recent work.

    A step that activates an expert reads its weights once, however few tokens chose it:
    that is one unit of work, and each row's arithmetic an eighth.
    """

    def __init__(self, half_life_s: float = 300.0) -> None:
        self._half_life_s = half_life_s
        self._model: Model | None = None
        self._tokens: list[list[int]] = []
        self._work: list[list[float]] = []
        # New work is scaled up instead of scaling all old work down at each report.
        self._base_s = 0.0

    def add(self, model: Model, status: router_pb2.MemberStatus, now_s: float) -> dict[int, int]:
        """Add a report; returns the tokens added per layer.

        Raises ValueError, adding nothing, on a layer or expert the model does not have.
        """
        checked = [_checked(model, entry) for entry in status.activations]
        if not checked:
            return {}
        if model != self._model:
            self._tokens = [[0] * model.num_experts for _ in range(model.num_layers)]
            self._work = [[0.0] * model.num_experts for _ in range(model.num_layers)]
            self._model, self._base_s = model, now_s
        scale = self._scale(now_s)
        if scale > _MAX_SCALE:
            self._work = [[work / scale for work in row] for row in self._work]
            self._base_s, scale = now_s, 1.0
        added: dict[int, int] = {}
        for layer_idx, counts in checked:
            tokens_row, work_row = self._tokens[layer_idx], self._work[layer_idx]
            for expert_id, tokens, steps in counts:
                tokens_row[expert_id] += tokens
                work_row[expert_id] += scale * (steps + tokens / ROWS_PER_EXPERT_READ)
                added[layer_idx] = added.get(layer_idx, 0) + tokens
        return added

    def tokens(self) -> list[list[int]]:
        """[layer][expert], empty before the first report; not to be changed."""
        return self._tokens

    def recent_work(self, now_s: float) -> list[list[float]]:
        """[layer][expert], empty before the first report."""
        scale = self._scale(now_s)
        return [[work / scale for work in row] for row in self._work]

    def page(self) -> dict[str, Any]:
        """The full matrix for `GET /experts/load`; may be called from another thread."""
        model, rows = self._model, self._tokens
        return {
            "checkpoint_id": model.checkpoint_id if model else "",
            "num_layers": model.num_layers if model else 0,
            "num_experts": model.num_experts if model else 0,
            "tokens": [list(row) for row in rows],
        }

    def _scale(self, now_s: float) -> float:
        exponent = max(0.0, now_s - self._base_s) / self._half_life_s
        return 2.0 ** min(exponent, 900.0)


def _checked(
    model: Model, entry: router_pb2.LayerActivations
) -> tuple[int, list[tuple[int, int, int]]]:
    """(layer, (expert, tokens, steps) of each expert named)."""
    where = f"status.activations: layer {entry.layer_idx}"
    if entry.layer_idx >= model.num_layers:
        raise ValueError(f"{where}: the model has {model.num_layers} layers")
    if len(entry.expert_ids) != len(entry.token_counts):
        raise ValueError(f"{where}: as many token_counts as expert_ids are needed")
    # Services of an older version count no steps: assume a step for each token.
    steps = entry.step_counts or entry.token_counts
    if len(steps) != len(entry.expert_ids):
        raise ValueError(f"{where}: as many step_counts as expert_ids are needed, or none")
    if len(entry.expert_ids) > model.num_experts:
        raise ValueError(f"{where}: the model has {model.num_experts} experts")
    counts = list(zip(entry.expert_ids, entry.token_counts, steps, strict=True))
    for expert_id, tokens, active in counts:
        if expert_id >= model.num_experts:
            raise ValueError(f"{where}: expert {expert_id} of {model.num_experts}")
        if max(tokens, active) > MAX_PER_REPORT:
            raise ValueError(f"{where}: {tokens} tokens in {active} steps in one report")
    return entry.layer_idx, counts
