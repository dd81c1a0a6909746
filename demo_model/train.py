"""How is the demonstration model trained? One command, data included.

    python -m demo_model.train --device cuda --minutes 8     # one GPU
    python -m demo_model.train --device cpu --hours 3        # two cores, resumable

The learning rate follows the clock, so a run always ends finished: it rises for a moment,
stays, and falls to zero over the second half; in the last tenth the matrices pass through
FP8 blocks before every step (straight-through), so that what is exported is what was
trained. The run then evaluates the exported checkpoint and writes `training.json`.
"""

import argparse
import json
import math
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from demo_model import chat, checkpoint_format, dataset, network, scoring, self_check
from demo_model.dataset import Batch
from demo_model.network import MATRICES, Shape, Weights
from demo_model.optimiser import Optimiser

MODEL_FOLDER = Path(__file__).with_name("model")
WARMUP_STEPS = 50
DECAY_FROM = 0.4
FP8_FROM = 0.9
BIAS_RATE = 0.002
SAVE_EVERY_S = 120
COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run."""

    device: str
    seconds: float
    rows: int
    length: int
    workers: int
    seed: int
    source: Path
    out: Path
    compile: bool
    start_from: Path | None
    rate: float


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
            hidden, load_E = self._layer(hidden, layer, cos, sin, mask, self.shape)
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
        """Copy the masters to what computes, through FP8 blocks near the end."""
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
        """Continue a run; how many seconds it had trained."""
        state = torch.load(path, map_location=self.settings.device, weights_only=True)
        for name, value in state["masters"].items():
            self.masters[name].copy_(value)
        self.optimiser.restore(state["optimiser"])
        self.step, self.tokens = state["step"], state["tokens"]
        return float(state["elapsed"])


def learning_rate_scale(progress: float, step: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * min(1.0, (1.0 - progress) / (1.0 - DECAY_FROM))


def run(settings: Settings, *, state: Path | None, exports: int) -> Trainer:
    """Train until the time is used up."""
    tokenizer_file = settings.source / "tokenizer.json"
    entries = Tokenizer.from_file(str(tokenizer_file)).get_vocab_size()
    batches_from = 0
    batch_seed = settings.seed
    trainer: Trainer | None = None
    elapsed = 0.0
    if state and state.exists():
        trainer = Trainer(settings, Shape(vocab_size=padded(entries)))
        elapsed = trainer.load_state(state)
        batches_from = trainer.step
        print(f"resumed at step {trainer.step}, {elapsed:.0f} s", flush=True)
    stream = dataset.stream(
        tokenizer_file,
        seed=batch_seed,
        rows=settings.rows,
        length=settings.length,
        workers=settings.workers,
        first=batches_from,
    )
    batch = next(stream)  # the workers must be forked before CUDA starts
    trainer = trainer or Trainer(settings, Shape(vocab_size=padded(entries)))
    saved = time.monotonic()
    started = saved - elapsed
    log_every = 100 if trainer.cuda else 10
    export_at = [settings.seconds * (i + 1) / (exports + 1) for i in range(exports)]
    first_tokens = trainer.tokens
    while True:
        now = time.monotonic()
        elapsed = now - started
        if elapsed >= settings.seconds:
            break
        loss = trainer.train_step(batch, elapsed / settings.seconds)
        batch = next(stream)
        if trainer.step % log_every == 1:
            value = float(loss)
            if not math.isfinite(value):
                raise RuntimeError(f"the loss is {value} at step {trainer.step}")
            rate = (trainer.tokens - first_tokens) / max(time.monotonic() - started, 1e-9)
            print(
                f"step {trainer.step} {elapsed:.0f}/{settings.seconds:.0f} s loss {value:.4f} "
                f"{trainer.tokens / 1e6:.1f} M tokens {rate / 1e3:.0f} k/s",
                flush=True,
            )
        if state and now - saved > SAVE_EVERY_S:
            trainer.save_state(state, elapsed)
            saved = now
        if export_at and elapsed > export_at[0]:
            export_at.pop(0)
            trainer.export()
    stream.close()
    trainer.export()
    return trainer


def padded(entries: int) -> int:
    """Vocabulary sizes are multiples of 64; the ids past the tokenizer's are never written."""
    return -(-entries // 64) * 64


def finish(trainer: Trainer, settings: Settings, seconds: float, per_skill: int) -> dict[str, Any]:
    """Evaluate what was written to disk and record the run."""
    found = self_check.check(
        self_check.load_for(settings.out, settings.device), settings.out, per_skill=per_skill
    )
    cuda = settings.device == "cuda"
    device = torch.cuda.get_device_name() if cuda else platform.machine()
    summary = {
        "device": device,
        "torch": torch.__version__,
        "seconds_training": round(seconds, 1),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "parameters": sum(value.numel() for value in trainer.masters.values()),
        "questions_per_skill_and_language": per_skill,
        **{key: value for key, value in found.items() if key != "wrong"},
    }
    (settings.out / "training.json").write_text(json.dumps(summary, indent=1) + "\n")
    mistakes = json.dumps(found["wrong"], ensure_ascii=False, indent=1)
    (settings.out.parent / "mistakes.json").write_text(mistakes, encoding="utf-8")
    print(scoring.render_table(found["tables"]))
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--hours", type=float, help="instead of --minutes")
    parser.add_argument("--rows", type=int, help="rows of a batch")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, default=MODEL_FOLDER, help="folder that has it")
    parser.add_argument("--out", type=Path, default=Path("out/demo_model/model"))
    parser.add_argument("--resume", type=Path, help="state file, read if there and kept up to date")
    parser.add_argument("--per-skill", type=int, default=100, help="questions of the evaluation")
    parser.add_argument("--exports", type=int, default=2, help="checkpoints written on the way")
    parser.add_argument("--start-from", type=Path, help="continue from an exported checkpoint")
    parser.add_argument("--rate", type=float, default=1.0, help="multiplies every learning rate")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    cuda = arguments.device == "cuda"
    torch.set_float32_matmul_precision("high")
    torch.set_flush_denormal(True)  # the decaying moments of idle weights slow a CPU down
    settings = Settings(
        device=arguments.device,
        seconds=(arguments.hours or arguments.minutes / 60) * 3600,
        rows=arguments.rows or (128 if cuda else 8),
        length=arguments.length,
        workers=arguments.workers,
        seed=arguments.seed,
        source=arguments.tokenizer,
        out=arguments.out,
        compile=cuda and not arguments.no_compile,
        start_from=arguments.start_from,
        rate=arguments.rate,
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    trainer = run(settings, state=arguments.resume, exports=arguments.exports)
    seconds = time.monotonic() - started
    summary = finish(trainer, settings, seconds, arguments.per_skill)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
