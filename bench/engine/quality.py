"""What does a weight format cost in quality? Two measurements, each relative to bfloat16.

`demo`: the demonstration model, served by `expertmesh up` with experts and linears in each format,
asked by its own evaluator (greedy; one right answer to each question).
`kl`: next-token distributions of the real-width slice (bench/engine/real_width.py) at each position
of random prompts, against float32 arithmetic on the same checkpoint. One layer of weights is in
memory at a time.

    .venv/bin/python bench/engine/quality.py demo [--per-skill 25] [--formats bf16,int8]
    .venv/bin/python bench/engine/quality.py kl [--formats bf16,fp8,int8,int4]

A table on standard error; the last line on standard output is JSON.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from bench.engine.engine import default_cache, say
from bench.engine.real_width import ensure_slice
from expertmesh.cluster.children import python_module
from moe_model.backends.backend import Backend
from moe_model.backends.choice import choose_backend
from moe_model.maths.attention import attend
from moe_model.maths.experts import HeldExperts, run_experts
from moe_model.maths.layer import from_combine, up_to_dispatch
from moe_model.maths.linear import linear
from moe_model.maths.rope import rope_cos_sin, rope_frequencies
from moe_model.numerics import DTYPES
from moe_model.weights.checkpoint import Checkpoint

FORMATS = ("bf16", "fp8", "int8", "int4")
START_TIMEOUT_S = 300


def demo(options: argparse.Namespace) -> dict[str, Any]:
    """Right answers in per cent by format, and the difference to bfloat16 in points."""
    right: dict[str, float] = {}
    asked = 0
    for weight_format in options.formats:
        found = _ask(weight_format, options.per_skill)
        asked = found["asked"]
        right[weight_format] = 100 * found["right"] / asked
        say(f"{weight_format}: {right[weight_format]:.2f} % of {asked} right")
    base = right.get("bf16")
    points = {name: round(value - base, 2) for name, value in right.items()} if base else {}
    return {"bench": "quality demo", "asked": asked, "right_percent": right, "points": points}


def _ask(weight_format: str, per_skill: int) -> dict[str, Any]:
    """The evaluator's report on a cluster started for it."""
    with tempfile.TemporaryDirectory(prefix="expertmesh-quality-") as folder, socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        port = it.getsockname()[1]
        it.close()
        run_dir = ("--run-dir", folder)
        formats = ("--expert-dtype", weight_format, "--linear-dtype", weight_format)
        flags = ("--detach", "--http-port", str(port), "--dtype", "bf16", *formats)
        up = python_module("expertmesh", "up", *flags, *run_dir)
        try:
            subprocess.run(up, check=True, stdout=subprocess.DEVNULL, timeout=START_TIMEOUT_S)
            url = f"http://127.0.0.1:{port}/v1"
            ask = ("--base-url", url, "--json", "--per-skill", str(per_skill))
            evaluate = python_module("demo_model.evaluate", *ask)
            return json.loads(subprocess.run(evaluate, check=True, stdout=subprocess.PIPE).stdout)
        finally:
            down = python_module("expertmesh", "down", *run_dir)
            subprocess.run(down, stdout=subprocess.DEVNULL, timeout=60)


def kl(options: argparse.Namespace) -> dict[str, Any]:
    """KL(float32 || format) in nats, mean and 99th percentile; how often the best token agrees."""
    folder = options.cache / "expertmesh-real-width"
    ensure_slice(folder)
    checkpoint = Checkpoint.open(folder)
    generator = torch.Generator().manual_seed(0)
    shape = (options.prompts, options.tokens)
    ids_NS = torch.randint(3, checkpoint.config.vocab_size, shape, generator=generator)
    expected = torch.log_softmax(forward(checkpoint, ids_NS, "f32"), dim=-1)
    rows: dict[str, dict[str, float]] = {}
    for weight_format in options.formats:
        found = torch.log_softmax(forward(checkpoint, ids_NS, weight_format), dim=-1)
        kl_T = (expected.exp() * (expected - found)).sum(dim=-1).clamp(min=0)
        agree = (expected.argmax(dim=-1) == found.argmax(dim=-1)).float().mean()
        rows[weight_format] = {
            "mean_nats": round(float(kl_T.mean()), 6),
            "p99_nats": round(statistics.quantiles(kl_T.tolist(), n=100)[98], 6),
            "same_best_percent": round(100 * float(agree), 2),
        }
        say(f"{weight_format}: {rows[weight_format]}")
    return {"bench": "quality kl", "positions": ids_NS.numel(), "formats": rows}


@torch.inference_mode()
def forward(checkpoint: Checkpoint, ids_NS: Tensor, weight_format: str) -> Tensor:
    """float32 logits [N * S, V] of every position; float32 means float32 throughout."""
    config = checkpoint.config
    dtype = DTYPES.get(weight_format, torch.bfloat16)
    backend = choose_backend(dtype)
    linears, maths = backend.linears(weight_format), backend.rows
    num_prompts, length = ids_NS.shape
    positions_T = torch.arange(length).repeat(num_prompts)
    cos_T, sin_T = rope_cos_sin(positions_T, rope_frequencies(config.rotary_dim, config.rope_theta))

    def attend_each(q_THP: Tensor, k_TGP: Tensor, v_TGP: Tensor) -> Tensor:
        prompts = zip(q_THP.split(length), k_TGP.split(length), v_TGP.split(length), strict=True)
        return torch.cat([attend(q, k, v, torch.arange(length)) for q, k, v in prompts])

    hidden_TD = checkpoint.outer("embedding", dtype)[ids_NS.flatten()]
    for layer_idx in range(config.num_layers):
        layer = backend.hold_layer(checkpoint.layer(layer_idx, linears), config)
        residual_TD, dispatch_TD, ids_TK, weights_TK = up_to_dispatch(
            hidden_TD, layer, cos_T, sin_T, attend_each
        )
        experts = _experts(checkpoint, layer_idx, weight_format, backend)
        hidden_TD = from_combine(
            residual_TD, run_experts(dispatch_TD, ids_TK, weights_TK, experts), maths
        )
        del experts
    final_TD = maths.rms_norm(hidden_TD, checkpoint.outer("final_norm", dtype), config.rms_norm_eps)
    return linear(final_TD, checkpoint.lm_head(linears), torch.float32)


def _experts(
    checkpoint: Checkpoint, layer_idx: int, weight_format: str, backend: Backend
) -> HeldExperts:
    config = checkpoint.config
    held = backend.room_for_experts(config.num_experts, config, weight_format)
    for expert_id in range(config.num_experts):
        held.put(expert_id, checkpoint.stored_expert(layer_idx, expert_id))
    return held


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("demo", "kl"))
    parser.add_argument("--formats", type=lambda text: text.split(","), default=list(FORMATS))
    parser.add_argument(
        "--per-skill", type=int, default=25, help="questions of each skill in each language"
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of the slice")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each prompt")
    options = parser.parse_args()
    unknown = set(options.formats) - set(FORMATS)
    if unknown:
        parser.error(f"--formats: some of {', '.join(FORMATS)}, got {', '.join(sorted(unknown))}")
    print(json.dumps(demo(options) if options.what == "demo" else kl(options)))


if __name__ == "__main__":
    main()
