"""What does one step of training do, and which state does it keep?

Float32 masters are copied to what computes (bfloat16 on CUDA) before each step; near the
end the copies pass through FP8 blocks, and gradients go straight through to the masters.
"""

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from demo_model import chat, checkpoint_format, dataset, network
from demo_model.dataset import Batch
from demo_model.network import MATRICES, Shape, Weights
from demo_model.optimiser import Optimiser

WARMUP_STEPS = 50
DECAY_FROM = 0.15
FP8_FROM = 0.9
BIAS_RATE = 0.002
COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run."""

    device: str
    """cuda or cpu"""
    seconds: float
    """how long to train, data and compilation included"""
    rows: int
    length: int
    """a batch is `rows` rows of `length` tokens"""
    workers: int
    """processes that make batches"""
    seed: int
    source: Path
    """folder with the tokenizer and the chat template"""
    out: Path
    compile: bool
    start_from: Path | None = None
    """continue from this checkpoint instead of random weights"""
    rate: float = 1.0
    """multiplies every learning rate"""
    size: str = "shipped"
    """a key of network.SIZES"""
    experts_by: str = ""
    """a key of network.EXPERTS, or "" for what suits the device"""

    def __post_init__(self) -> None:
        if self.size not in network.SIZES:
            raise ValueError(f"size is {self.size!r}; allowed are {', '.join(network.SIZES)}")
        if self.experts_by not in ("", *network.EXPERTS):
            allowed = ", ".join(network.EXPERTS)
            raise ValueError(f"experts_by is {self.experts_by!r}; allowed are {allowed}")


class Trainer:
    """Float32 masters, the copies that compute, the optimiser and the clock."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        self.settings = settings
        self.shape = shape
        device = settings.device
        self.cuda = device == "cuda"
        first = network.initial(shape, settings.seed)
        if settings.start_from:
            first, _ = checkpoint_format.load(settings.start_from)
        self.masters = {name: value.to(device).contiguous() for name, value in first.items()}
        self.copies: Weights = {}
        for name, value in self.masters.items():
            wide = name in ("gate", "bias") or not self.cuda
            copy = value.to(torch.float32 if wide else torch.bfloat16, copy=True)
            self.copies[name] = copy.requires_grad_(name != "bias")
        self.optimiser = Optimiser(self.masters)
        self.step = 0
        self.tokens = 0
        self.documents = torch.zeros(
            settings.rows, settings.length, dtype=torch.int16, device=device
        )
        documents = self.documents

        def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (documents[row, query] == documents[row, key])

        self._visible = visible
        self._layer: Any = network.packed_layer
        self._loss: Any = network.loss_sum
        if settings.compile:
            self._layer = torch.compile(network.packed_layer, dynamic=False)
            self._loss = torch.compile(network.loss_sum, dynamic=False)

    def train_step(self, batch: Batch, progress: float) -> Tensor:
        """One update from one batch; the mean loss, still on the device."""
        self._refresh(fp8=progress >= FP8_FROM)
        tokens = self._on_device(batch.tokens_RT).long()
        labels = self._on_device(batch.labels_RT).long()
        cos, sin = network.rotary_tables(self._on_device(batch.positions_RT), self.shape)
        self.documents.copy_(self._on_device(batch.documents_RT))
        mask = self._mask()
        hidden = F.embedding(tokens, self.copies["embed"])
        loads = []
        for layer in network.layers_of(self.copies, self.shape):
            hidden, load_E = self._layer(
                hidden, layer, cos, sin, mask, self.shape, self.settings.experts_by
            )
            loads.append(load_E)
        total = self._loss(
            hidden, self.copies["norm"], self.copies["head"], labels, self.shape.rms_norm_eps
        )
        loss = total / (labels != dataset.NO_LABEL).sum()
        loss.backward()
        gradients = {}
        for name, copy in self.copies.items():
            if name != "bias":
                assert copy.grad is not None
                gradients[name], copy.grad = copy.grad, None
        scale = self.settings.rate * learning_rate_scale(progress, self.step)
        self.optimiser.step(gradients, scale)
        self._balance(torch.stack(loads), scale)
        self.step += 1
        self.tokens += tokens.numel()
        return loss.detach()

    def _on_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to("cuda", non_blocking=True) if self.cuda else tensor

    def _mask(self) -> Any:
        """Causal, within one conversation."""
        documents = self.documents
        rows, length = documents.shape
        if not self.cuda:
            same = documents[:, None, :, None] == documents[:, None, None, :]
            return same & torch.ones(length, length, dtype=torch.bool).tril()
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(self._visible, rows, None, length, length, device="cuda")

    @torch.no_grad()
    def _refresh(self, *, fp8: bool) -> None:
        """Copy the masters to the computing weights, through FP8 blocks near the end."""
        for name, master in self.masters.items():
            source = checkpoint_format.rounded(master) if fp8 and name in MATRICES else master
            self.copies[name].copy_(source)

    @torch.no_grad()
    def _balance(self, loads_LE: Tensor, scale: float) -> None:
        """Auxiliary-loss-free balancing: push every expert's selection bias towards fair load."""
        fair = loads_LE.mean(1, keepdim=True)
        self.masters["bias"] += BIAS_RATE * max(scale, 0.05) * torch.sign(fair - loads_LE)

    def export(self) -> None:
        """Write the checkpoint as it would be served now."""
        folder = self.settings.out
        tokenizer = Tokenizer.from_file(str(self.settings.source / "tokenizer.json"))
        tokens = {
            "bos_token_id": dataset.token_id(tokenizer, chat.ROLE),
            "eos_token_id": dataset.token_id(tokenizer, chat.END_OF_TURN),
        }
        checkpoint_format.save(self.masters, self.shape, tokens, folder)
        if folder.resolve() != self.settings.source.resolve():
            for name in COPIED:
                if (self.settings.source / name).exists():
                    shutil.copy(self.settings.source / name, folder / name)

    def save_state(self, path: Path, elapsed: float) -> None:
        state = {
            "masters": self.masters,
            "optimiser": self.optimiser.state(),
            "step": self.step,
            "tokens": self.tokens,
            "elapsed": elapsed,
        }
        torch.save(state, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)

    def load_state(self, path: Path) -> float:
        """Continue a run; returns the seconds it was trained so far."""
        state = torch.load(path, map_location=self.settings.device, weights_only=True)
        for name, value in state["masters"].items():
            self.masters[name].copy_(value)
        self.optimiser.restore(state["optimiser"])
        self.step, self.tokens = state["step"], state["tokens"]
        return float(state["elapsed"])


def learning_rate_scale(progress: float, step: int) -> float:
    """Rises over the first steps, stays for a moment, then falls to 0 along a cosine.

    `progress` in [0, 1] is of the time.
    """
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    fallen = max(0.0, (progress - DECAY_FROM) / (1.0 - DECAY_FROM))
    return warm * (1.0 + math.cos(math.pi * min(1.0, fallen))) / 2
