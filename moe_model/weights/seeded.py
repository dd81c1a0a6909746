"""How does a service start without weights on a disk? It makes them up from a seed, on its device.

Equal seeds give equal weights in every process and on every device, whichever pieces it makes, in
any order. Matrices are normal, in E4M3 with a scale for each block of 128 x 128. Activations keep
their scale: after any number of layers, residuals are under twice as large as at first.

Experts come from few masters, which are drawn: moe_model/moved.py makes the others of them, all
different. Where sizes give no blocks to move, every expert is drawn.
"""

import math
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from moe_model.families.family import TensorSpec
from moe_model.families.known import load_config, tensor_names
from moe_model.maths.layer import LayerWeights
from moe_model.maths.linear import LinearWeight
from moe_model.maths.linears import Linears
from moe_model.moved import BLOCK, Master, num_moves
from moe_model.quant import StoredExpert, StoredMatrix, scale_shape
from moe_model.weights.layer_weights import layer_weights
from moe_model.weights.load_flag import Seeded
from moe_model.weights.manifest import Manifest, config_digest
from moe_model.weights.packed_header import is_packed
from moe_model.weights.seeded_numbers import GENERATOR, LEVELS, draw, normal_levels

CODE_SPREAD = 128.0
"""Standard deviation of the E4M3 codes: the largest are then near 370."""
SCORE_SPREAD = 0.2
"""Standard deviation of an expert's score: the sigmoid of a normal number."""
_ACTIVATED = 0.36
"""Mean square of SiLU(gate) * up, where gate and up are normal."""


class SeededManifest(Manifest):
    """Of no files: `attention` says what the weights were made of."""

    @property
    def checkpoint_id(self) -> str:
        return f"random-{super().checkpoint_id}"


class SeededWeights:
    """What a `Checkpoint` gives, made when it is asked for, on `device`."""

    def __init__(self, folder: Path, load: Seeded, device: torch.device | str = "cpu"):
        """Reads config.json. Raises ValueError with one clear line."""
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"{folder}: not a folder with a config.json")
        if is_packed(folder):
            raise ValueError(f"--load {load}: {folder} holds packed weights; give another folder")
        self.folder = folder
        self.load = load
        self.config = config = load_config(folder)
        if load.skew and not config.use_routing_bias:
            raise ValueError(f"--load {load}: the model has no routing bias to skew")
        self._names = tensor_names(config)
        self.device = torch.device(device)
        self._num_moves = num_moves(config.expert_size, config.hidden_size)
        self._masters: dict[int, dict[str, Master]] = {}
        self.manifest = SeededManifest(
            config=config_digest(config), attention=f"{load}, generator {GENERATOR}", pieces=()
        )

    def holds_expert(self, layer_idx: int, expert_id: int) -> bool:
        return True

    def stored_expert(self, layer_idx: int, expert_id: int) -> StoredExpert:
        """One piece, E4M3."""
        where = f"{self.load}: layer {layer_idx} expert {expert_id}"
        piece = layer_idx * self.config.num_experts + expert_id
        which, move = divmod(piece, self._num_moves)
        masters = self._masters_of(which)
        return StoredExpert(**{key: masters[key].move(move, f"{where} {key}") for key in masters})

    def layer(self, layer_idx: int, linears: Linears) -> LayerWeights:
        """As `Checkpoint.layer`."""
        specs = self._names.layer(layer_idx)
        return layer_weights(
            specs, lambda key: self._stored(key, specs[key], f"layers.{layer_idx}"), linears
        )

    def outer(self, key: str, dtype: torch.dtype) -> Tensor:
        """`embedding` [V, D] or `final_norm` [D]."""
        return self._stored(key, self._names.outer()[key], "outer").values.to(dtype)

    def lm_head(self, linears: Linears) -> LinearWeight:
        return linears.make([self._stored("lm_head", self._names.outer()["lm_head"], "outer")])

    def _masters_of(self, which: int) -> dict[str, Master]:
        """By matrix. Kept until others are asked for: pieces are loaded in order."""
        if which not in self._masters:
            specs = self._names.expert(0, 0)
            self._masters = {
                which: {
                    key: Master(stored=self._stored(key, spec, f"masters.{which}"))
                    for key, spec in specs.items()
                }
            }
        return self._masters[which]

    def _stored(self, key: str, spec: TensorSpec, place: str) -> StoredMatrix:
        """`key`: one of `TensorNames`. Quantised ones have scales."""
        name = f"{GENERATOR}|{self.load.seed}|{place}|{key}"
        where = f"{self.load}: {place}.{key}"
        block = (BLOCK, BLOCK)
        if not spec.quantised:
            values = draw(name, spec.shape, self._levels(key, spec), self.device)
            return StoredMatrix(values=values, scales=None, block=block, where=where)
        rows, cols = spec.shape
        grid = scale_shape(rows, cols, *block)
        return StoredMatrix(
            values=draw(name, spec.shape, _codes(), self.device).view(torch.float8_e4m3fn),
            scales=draw(f"{name}|scales", grid, _scales(self._spread(key, cols)), self.device),
            block=block,
            where=where,
        )

    def _levels(self, key: str, spec: TensorSpec) -> Tensor:
        """What a tensor without scales is drawn from."""
        if key == "bias":
            return _normal(0.0, self.load.skew * SCORE_SPREAD, torch.float32)
        if len(spec.shape) == 1:
            return _normal(1.0, 0.125, torch.bfloat16)
        spread = 1.0 if key == "embedding" else self._spread(key, spec.shape[-1])
        return _normal(0.0, spread, torch.float32 if key == "routing" else torch.bfloat16)

    def _spread(self, key: str, num_inputs: int) -> float:
        """Standard deviation that gives outputs as large as inputs; what both blocks of all layers
        add to a residual is as large as what it began with."""
        config = self.config
        spread = 1 / math.sqrt(num_inputs)
        if key == "w2":  # each row's experts are averaged
            spread *= math.sqrt(config.top_k / _ACTIVATED)
        return spread / math.sqrt(2 * config.num_layers) if key in ("o", "w2") else spread


@cache
def _normal(mean: float, spread: float, dtype: torch.dtype) -> Tensor:
    """LEVELS values."""
    values = [mean + spread * level for level in normal_levels()]
    return torch.tensor(values, dtype=torch.float64).to(dtype)


@cache
def _codes() -> Tensor:
    """LEVELS E4M3 codes as uint8, normal with CODE_SPREAD."""
    return _normal(0.0, CODE_SPREAD, torch.float32).to(torch.float8_e4m3fn).view(torch.uint8)


@cache
def _scales(spread: float) -> Tensor:
    """LEVELS float32 scales that give codes this spread, more or less: 0.75 to 1.25 of it."""
    scales = [spread / CODE_SPREAD * (0.75 + level / (2 * LEVELS)) for level in range(LEVELS)]
    return torch.tensor(scales, dtype=torch.float64).float()
