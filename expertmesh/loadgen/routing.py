"""Which experts does each row of a replayed step choose? As recorded, or drawn by counts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from expertmesh.loadgen.routing_file import NAMES
from moe_model.config import ModelConfig
from moe_model.weights.safetensors_file import SafetensorsFile
from rpc.config import max_rows_per_message

MAX_FILE_BYTES = 2**30


@dataclass(frozen=True)
class RoutedStep:
    """A step: ids_LTK int32, the experts of its T rows in each layer."""

    is_decode: bool
    ids_LTK: Tensor


class Routing(Protocol):
    """The steps to replay."""

    def steps(self, stream: int, num_streams: int) -> Iterator[RoutedStep]:
        """The steps of one of `num_streams` streams."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Each row's experts are drawn by how often each was chosen in its layer."""

    tokens: Sequence[Sequence[int]]  # [layer][expert]
    num_steps: int  # of each stream
    num_rows: int  # of each step
    top_k: int
    seed: int = 0

    def steps(self, stream: int, num_streams: int) -> Iterator[RoutedStep]:
        generator = torch.Generator().manual_seed(self.seed + stream)
        for _ in range(self.num_steps):
            layers = [draw(row, self.num_rows, self.top_k, generator) for row in self.tokens]
            yield RoutedStep(True, torch.stack(layers))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The recorded steps; several streams take turns with them."""

    recorded: Sequence[RoutedStep]

    def steps(self, stream: int, num_streams: int) -> Iterator[RoutedStep]:
        yield from self.recorded[stream::num_streams]


def read_steps(path: Path, config: ModelConfig) -> Recorded:
    """Read a file of `experts record --exact`. Raises ValueError saying what is wrong with it."""
    if path.exists() and path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are read")
    file = SafetensorsFile(path)
    kinds = {name: (entry.dtype, len(entry.shape)) for name, entry in file.entries.items()}
    if kinds != dict(zip(NAMES, (("I32", 3), ("I32", 1), ("U8", 1)), strict=True)):
        raise ValueError(f"{path}: not a recording of `expertmesh experts record --exact`")
    ids_RLK, rows_S, decode_S = (file.tensor(name) for name in NAMES)
    wanted = (config.num_layers, config.top_k)
    if tuple(ids_RLK.shape[1:]) != wanted or not len(rows_S):
        raise ValueError(
            f"{path}: expected steps of {wanted[0]} layers with {wanted[1]} experts a row, got "
            f"{len(rows_S)} steps of {ids_RLK.shape[1]} with {ids_RLK.shape[2]}"
        )
    most_rows = max_rows_per_message(config.hidden_size, config.top_k)
    if int(rows_S.min()) < 1 or int(rows_S.max()) > most_rows:
        raise ValueError(f"{path}: step_rows: 1 to {most_rows} rows are allowed in a step")
    if len(decode_S) != len(rows_S) or int(rows_S.sum()) != ids_RLK.shape[0]:
        raise ValueError(f"{path}: step_rows and is_decode do not agree with expert_ids")
    if int(ids_RLK.min()) < 0 or int(ids_RLK.max()) >= config.num_experts:
        raise ValueError(f"{path}: expert_ids: 0 to {config.num_experts - 1} are allowed")
    ascending_RLK = ids_RLK.sort(dim=-1).values
    if bool((ascending_RLK.diff(dim=-1) == 0).any()):
        raise ValueError(f"{path}: expert_ids: a row names an expert of a layer twice")
    parts = ascending_RLK.split(rows_S.tolist())
    return Recorded(
        recorded=[
            RoutedStep(bool(is_decode), ids_TLK.transpose(0, 1).contiguous())
            for ids_TLK, is_decode in zip(parts, decode_S.tolist(), strict=True)
        ]
    )


def read_counts(path: Path, config: ModelConfig) -> list[list[int]]:
    """Counts as [layer][expert] from a file of `experts record`. Raises ValueError."""
    try:
        tokens = json.loads(path.read_text())["tokens"]
        shape = {(len(tokens), len(row)) for row in tokens}
        sound = all(type(count) is int and count >= 0 for row in tokens for count in row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a recording of `expertmesh experts record`: {error}"
        ) from None
    if not sound or shape != {(config.num_layers, config.num_experts)}:
        raise ValueError(
            f"{path}: expected counts of {config.num_layers} layers of {config.num_experts} experts"
        )
    if not any(map(sum, tokens)):
        raise ValueError(f"{path}: nothing was routed while it was recorded")
    return tokens


def draw(counts: Sequence[int], rows: int, top_k: int, generator: torch.Generator) -> Tensor:
    """int32 [rows, top_k]: ascending, different experts of each row, drawn by `counts`."""
    # The top k of log weight + Gumbel noise are a draw without replacement.
    chances_E = torch.tensor(counts, dtype=torch.float64) + 1e-9
    noise_TE = -torch.log(
        -torch.log(torch.rand(rows, len(counts), generator=generator, dtype=torch.float64))
    )
    return (
        (chances_E.log() + noise_TE).topk(top_k, dim=1).indices.sort(dim=1).values.to(torch.int32)
    )
