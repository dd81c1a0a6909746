"""How is the demonstration model trained? One command, data included.

    python -m demo_model.train --device cuda --minutes 7.8   # one GPU
    python -m demo_model.train --device cpu --hours 3        # two cores, resumable

The learning rate follows the clock, so a run always ends finished: it rises for a moment,
stays, and falls to zero along a cosine; in the last tenth the matrices pass through
FP8 blocks before every step (straight-through), so that what is exported is what was
trained. The run then evaluates the exported checkpoint and writes `training.json`.
"""

import argparse
import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from demo_model import dataset, scoring, self_check
from demo_model.data_wait import DataWait
from demo_model.judging import check
from demo_model.network import EXPERTS, SIZES, Shape
from demo_model.trainer import Settings, Trainer

MODEL_FOLDER = Path(__file__).with_name("model")
SAVE_EVERY_S = 120
COMPILED_AT = 3
"""The step from which on the speed counts."""
TOLD_EVERY_S = 15
LEAST_STEPS = 12
"""Done however short the time is, so that a trial says how fast it is."""
SKILLS_SHARE = 0.45
"""Of the evaluation's time for the single skills; the families of tasks get what is left."""
EXPORT_S = 5
"""An export on a GPU takes about this long at most."""


def run(settings: Settings, *, state: Path | None, exports: int) -> Trainer:
    """Train until the time is up, resuming from `state` if it exists and keeping it current."""
    begun = time.monotonic()
    tokenizer_file = settings.source / "tokenizer.json"
    entries = Tokenizer.from_file(str(tokenizer_file)).get_vocab_size()
    stream = dataset.stream(
        tokenizer_file,
        seed=settings.seed,
        rows=settings.rows,
        length=settings.length,
        workers=settings.workers,
        first=steps_done(state),
    )
    batch = next(stream)  # the workers must be forked before CUDA starts
    trainer = Trainer(settings, Shape(vocab_size=padded(entries), **SIZES[settings.size]))
    elapsed = 0.0
    if state and state.exists():
        elapsed = trainer.load_state(state)
        print(f"resumed at step {trainer.step}, {elapsed:.0f} s", flush=True)
    resumed = saved = time.monotonic()
    started = begun - elapsed
    print(f"{resumed - begun:.0f} s until the first step", flush=True)
    export_times = [settings.seconds * (i + 1) / (exports + 1) for i in range(exports)]
    export_at = [moment for moment in export_times if moment > elapsed]
    first_tokens = trainer.tokens
    told = waited = 0.0
    data_wait: DataWait | None = None
    with _exported_when_broken_off(trainer):
        while True:
            now = time.monotonic()
            elapsed = now - started
            if elapsed >= settings.seconds and trainer.step >= LEAST_STEPS:
                break
            loss = trainer.train_step(batch, min(1.0, elapsed / settings.seconds))
            asked = time.monotonic()
            batch = next(stream)
            got = time.monotonic()
            waited += got - asked
            if data_wait:
                data_wait.add(got, got - asked)
            elif trainer.step >= COMPILED_AT:
                data_wait = DataWait(got)
            if _is_told(trainer.step, cuda=trainer.cuda) or elapsed > told + TOLD_EVERY_S:
                told = elapsed
                value = float(loss)
                if not math.isfinite(value):
                    raise RuntimeError(f"the loss is {value} at step {trainer.step}")
                seconds = max(time.monotonic() - resumed, 1e-9)
                rate = (trainer.tokens - first_tokens) / seconds
                print(
                    f"step {trainer.step} {elapsed:.0f}/{settings.seconds:.0f} s loss {value:.4f} "
                    f"{trainer.tokens / 1e6:.1f} M tokens {rate / 1e3:.1f} k/s, "
                    f"waited {waited:.1f} s for data",
                    flush=True,
                )
                if trainer.step == COMPILED_AT:
                    resumed, first_tokens = time.monotonic(), trainer.tokens
            if state and now - saved > SAVE_EVERY_S:
                trainer.save_state(state, elapsed)
                saved = now
            if export_at and elapsed > export_at[0]:
                export_at.pop(0)
                trainer.export()
    stream.close()
    if state:
        trainer.save_state(state, elapsed)
    trainer.export()
    return trainer


@contextmanager
def _exported_when_broken_off(trainer: Trainer) -> Iterator[None]:
    """What was learnt until an error or a signal can still be tried, or be started from."""
    try:
        yield
    except BaseException:
        if trainer.step >= LEAST_STEPS:
            print(f"broken off at step {trainer.step}: exporting what it is now", flush=True)
            trainer.export()
        raise


def _is_told(step: int, *, cuda: bool) -> bool:
    """Whether a line is printed after this step."""
    return step in (1, COMPILED_AT, LEAST_STEPS, 30) or step % (100 if cuda else 10) == 0


def steps_done(state: Path | None) -> int:
    """How many batches an earlier part of this run has used."""
    if state is None or not state.exists():
        return 0
    return int(torch.load(state, map_location="cpu", weights_only=True)["step"])


def padded(entries: int) -> int:
    """A multiple of 64; the ids beyond the tokenizer's are never generated."""
    return -(-entries // 64) * 64


def finish(
    trainer: Trainer, settings: Settings, seconds: float, per_skill: int, check_seconds: float
) -> dict[str, Any]:
    """Record the run, then evaluate the checkpoint on disk for at most so long, and record that."""
    summary = summary_of(trainer, settings, seconds)
    recorded = settings.out / "training.json"
    recorded.write_text(json.dumps(summary, indent=1) + "\n")
    end = time.monotonic() + check_seconds
    weights = self_check.load_for(settings.out, settings.device)
    skills_s = SKILLS_SHARE * (end - time.monotonic())
    found = self_check.check(weights, settings.out, per_skill=per_skill, seconds=skills_s)
    print(scoring.render_table(found["tables"]), flush=True)
    left_s = end - time.monotonic()
    found |= check.check(weights, settings.out, per_family=per_skill, seconds=left_s)
    print(scoring.render_table(found["families"]), flush=True)
    summary["questions_per_skill_and_language"] = per_skill
    summary |= {key: value for key, value in found.items() if not key.startswith("wrong")}
    recorded.write_text(json.dumps(summary, indent=1) + "\n")
    mistakes = json.dumps([*found["wrong"], *found["wrong_steps"]], ensure_ascii=False, indent=1)
    (settings.out.parent / "mistakes.json").write_text(mistakes, encoding="utf-8")
    return summary


def summary_of(trainer: Trainer, settings: Settings, seconds: float) -> dict[str, Any]:
    """What `training.json` says of the run itself."""
    cuda = settings.device == "cuda"
    device = torch.cuda.get_device_name() if cuda else platform.machine()
    return {
        "device": device,
        "torch": torch.__version__,
        "seed": settings.seed,
        "rows": settings.rows,
        "length": settings.length,
        "seconds_training": round(seconds, 1),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "parameters": sum(value.numel() for value in trainer.masters.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--hours", type=float, help="instead of --minutes")
    parser.add_argument("--rows", type=int, help="rows of a batch")
    parser.add_argument("--length", type=int, help="tokens of a row; no conversation is longer")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, default=MODEL_FOLDER, help="folder that has it")
    parser.add_argument("--out", type=Path, default=Path("out/demo_model/model"))
    parser.add_argument("--resume", type=Path, help="state file, read if there and kept up to date")
    parser.add_argument("--per-skill", type=int, default=100, help="questions of the evaluation")
    parser.add_argument("--check-seconds", type=float, default=60.0, help="of the evaluation")
    parser.add_argument("--exports", type=int, default=2, help="checkpoints written on the way")
    parser.add_argument("--size", choices=SIZES, help="default: shipped on cuda, small on cpu")
    parser.add_argument("--experts", default="", choices=("", *EXPERTS), help="how they compute")
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
        rows=arguments.rows or (32 if cuda else 8),
        length=arguments.length or (4096 if cuda else 1024),
        workers=arguments.workers,
        seed=arguments.seed,
        source=arguments.tokenizer,
        out=arguments.out,
        compile=cuda and not arguments.no_compile,
        start_from=arguments.start_from,
        rate=arguments.rate,
        experts_by=arguments.experts,
        size=arguments.size or ("shipped" if cuda else "small"),
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    started = time.monotonic()
    check_s = arguments.check_seconds if arguments.per_skill else 0.0
    print(
        f"plan: {settings.seconds:.0f} s of training, start and compilation included; about "
        f"{EXPORT_S} s for the export; at most {check_s:.0f} s of evaluation, and what was begun "
        f"then: {settings.seconds + EXPORT_S + check_s:.0f} s from now on",
        flush=True,
    )
    trainer = run(settings, state=arguments.resume, exports=arguments.exports)
    seconds = time.monotonic() - started
    print(f"exported {_size_bytes(settings.out):,} bytes after {seconds:.0f} s", flush=True)
    if arguments.per_skill == 0:
        return
    summary = finish(trainer, settings, seconds, arguments.per_skill, arguments.check_seconds)
    print(json.dumps(summary))
    print(f"all done after {time.monotonic() - started:.0f} s", flush=True)


def _size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


if __name__ == "__main__":
    main()
