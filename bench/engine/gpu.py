"""How fast is M2 on one GPU, from requests over gRPC to tokens? Weights from a seed.

    .venv/bin/python bench/engine/gpu.py [--parts full,prefill,slope,split] [--seconds 2] [--tiny]

Parts, each with services of its own; all but the last have all experts in the attention service:

- `full`: all 62 layers, experts int4 in groups of 128, linears fp8. Tokens a second with B streams
  at a context, greedy and sampled, and a step's time beside the device's own time for it.
- `prefill`: of the same, 8,000 tokens, and a prompt of which all but 100 tokens are cached.
- `slope`: fp8 with 8 and 24 layers: microseconds a layer by the difference, of steps and of the
  device in them, and prefill.
- `split`: fp8 with 8 layers, attention and one pool as two processes on the same card over gRPC,
  against one process: tokens a second of each, their ratio, and what a hop adds to a layer.

A prompt is computed once before it is timed, so that streams decode together from the start. What
the services say about their memory goes to standard error, as progress does; the last line on
standard output is JSON. `--tiny`: a small model on the CPU, to see that all of this runs.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.engine.gpu_services import Place, Service, say
from bench.engine.real_width import REAL_WIDTH

M2 = {**REAL_WIDTH, "num_hidden_layers": 62, "num_local_experts": 256, "vocab_size": 200_064}
TINY = {
    **REAL_WIDTH, "num_hidden_layers": 2, "num_local_experts": 8, "num_experts_per_tok": 2,
    "hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "rotary_dim": 16, "vocab_size": 512,
}  # fmt: skip
FULL = ((1, 100), (8, 100), (1, 4096), (16, 4096), (64, 1024))
"""Streams, and positions of context."""
FULL_FORMATS = ("int4_g128", "fp8")
SLOPE_ROWS = (1, 8, 32, 64)
SLOPE_FORMATS = ("fp8", "fp8")
SPLIT_ROWS, SPLIT_LAYERS = (1, 32), 8
SLOPE_LAYERS = (8, 24)
ALONE = 0.98
SHARES = (0.4, 0.5)
"""Of the card: for attention and for the pool beside it."""
SAMPLED = {"temperature": 1.0, "top_p": 0.95, "top_k": 40, "seed": 5}
GREEDY = {"top_p": 1.0}


def decode(
    service: Service,
    place: Place,
    streams: int,
    context: int,
    sampling: dict[str, Any],
    seconds: float,
) -> dict[str, float]:
    """Of streams that all decode: tokens a second, and milliseconds of a step and of the device."""
    streams = place.streams(streams)
    prompts = [place.prompt(context, seed) for seed in range(streams)]
    service.streams(prompts, 1, GREEDY)  # computes the prompts
    count = 16
    while True:
        # The same tokens twice: the first run makes the graphs.
        service.streams(prompts, count, sampling)
        before = service.device_steps()
        times = service.streams(prompts, count, sampling)
        after = service.device_steps()
        begun = max(stream[1] for stream in times)
        ended = min(stream[-1] for stream in times)
        if ended - begun > seconds / 2 or count >= 512:
            break
        count = min(512, int(count * max(2, seconds / max(ended - begun, 0.01))))
    gaps = [b - a for stream in times for a, b in itertools.pairwise(stream[1:])]
    found = {
        "tok_s": streams * (count - 2) / (ended - begun),
        "step_ms": statistics.median(gaps) * 1e3,
        "device_ms": _device_ms(before, after),
    }
    return {name: round(value, 3) for name, value in found.items()}


def _device_ms(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Of a step between two readings."""
    return (after[0] - before[0]) / max(1.0, after[1] - before[1]) * 1e3


def prefill(service: Service, place: Place, length: int) -> float:
    """Tokens a second to the first token: the better of two new prompts, the first compiles."""
    service.streams([place.prompt(length, 90)], 1, GREEDY)
    return place.length(length) / min(
        service.streams([place.prompt(length, seed)], 1, GREEDY)[0][0] for seed in (91, 92)
    )


def cached(service: Service, place: Place, length: int, new: int) -> tuple[float, float]:
    """Milliseconds to the first token of a prompt whose last tokens alone are new, the median; and
    of the device for it."""
    prompt = place.prompt(length - new, 93)
    service.streams([prompt], 1, GREEDY)
    before = service.device_steps()
    found = [
        service.streams([prompt + place.prompt(new, seed)], 1, GREEDY)[0][0]
        for seed in range(100, 107)
    ]
    return statistics.median(found[2:]) * 1e3, _device_ms(before, service.device_steps())


def full(folder: Path, seconds: float, place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    limits = (*place.formats(*FULL_FORMATS), *place.memory(ALONE))
    with Service(folder, place, 62, *limits) as service:
        for streams, context in FULL:
            for name, sampling in (("greedy", GREEDY), ("sampled", SAMPLED)):
                key = f"{streams} x {context} {name}"
                found[key] = decode(service, place, streams, context, sampling, seconds)
                say(f"full {key}: {found[key]}")
    return found


def prefill_of_full(folder: Path, _: float, place: Place) -> dict[str, Any]:
    limits = (*place.formats(*FULL_FORMATS), *place.memory(ALONE))
    with Service(folder, place, 62, *limits) as service:
        found: dict[str, Any] = {"8000 tok_s": round(prefill(service, place, 8000))}
        for new in (100, 16, 250):
            first_ms, device_ms = cached(service, place, 8000, new)
            found[f"cached {8000 - new} of 8000 ms"] = round(first_ms, 1)
            found[f"cached {8000 - new} of 8000 device_ms"] = round(device_ms, 1)
    say(f"prefill: {found}")
    return found


def slope(folder: Path, seconds: float, place: Place) -> dict[str, Any]:
    steps: dict[int, dict[int, dict[str, float]]] = {}
    rate = 0.0
    few, many = SLOPE_LAYERS
    limits = (*place.formats(*SLOPE_FORMATS), *place.memory(ALONE))
    for layers in SLOPE_LAYERS:
        with Service(folder, place, layers, *limits) as service:
            steps[layers] = {
                rows: decode(service, place, rows, 64, GREEDY, seconds) for rows in SLOPE_ROWS
            }
            rate = prefill(service, place, 8000)
        say(f"slope, {layers} layers: {steps[layers]}, prefill {rate:.0f} tok/s")
    more = place.layers(many) - place.layers(few)
    return {
        f"layer_{name.replace('ms', 'us')}": {
            str(rows): round((steps[many][rows][name] - steps[few][rows][name]) / more * 1e3, 1)
            for rows in SLOPE_ROWS
        }
        for name in ("step_ms", "device_ms")
    } | {f"prefill 8000 of {many} layers tok_s": round(rate)}


def split(folder: Path, seconds: float, place: Place) -> dict[str, Any]:
    """Attention and a pool apart, against both in one process."""
    experts, linears = SLOPE_FORMATS
    found: dict[str, Any] = {}
    whole = (*place.formats(experts, linears), *place.memory(SHARES[0] + SHARES[1]))
    own = (*place.formats(experts, linears)[2:], *place.memory(SHARES[0]))
    pool = (*place.formats(experts, linears)[:2], *place.memory(SHARES[1]))
    steps: dict[str, dict[int, dict[str, float]]] = {}
    for name, flags, of_pool in (("in process", whole, None), ("split", own, pool)):
        with Service(folder, place, SPLIT_LAYERS, *flags, pool=of_pool) as service:
            steps[name] = {
                rows: decode(service, place, rows, 64, GREEDY, seconds) for rows in SPLIT_ROWS
            }
            found[f"{name} prefill 2000 tok_s"] = round(prefill(service, place, 2000))
        say(f"split, {name}: {steps[name]}")
    for rows in SPLIT_ROWS:
        one, other = steps["in process"][rows], steps["split"][rows]
        streams = place.streams(rows)
        more_ms = (streams / other["tok_s"] - streams / one["tok_s"]) * 1e3
        found[f"{rows} rows"] = {
            "in process tok_s": one["tok_s"],
            "split tok_s": other["tok_s"],
            "ratio": round(other["tok_s"] / one["tok_s"], 3),
            "hop_us": round(more_ms / place.layers(SPLIT_LAYERS) * 1e3, 1),
        }
    return found


PARTS = {"full": full, "prefill": prefill_of_full, "slope": slope, "split": split}


def _card() -> dict[str, Any]:
    """Its name and copy rate, by a process of its own: a context would stay on the card."""
    code = (
        "import json, torch; from bench.kernels.gpu_experts import copy_rate; print(json.dumps({"
        "'device': torch.cuda.get_device_name(), 'copy_tb_s': round(copy_rate() / 1e12, 3)}))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=2.0, help="of each decode measurement")
    parser.add_argument("--step-rows", type=int, default=8192, help="rows of a step at most")
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU")
    arguments = parser.parse_args()
    place = Place(config=M2, step_rows=arguments.step_rows)
    if arguments.tiny:
        place = Place(config=TINY, device="cpu", step_rows=arguments.step_rows, is_tiny=True)
    found: dict[str, Any] = {"device": "cpu"} if arguments.tiny else _card()
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts.split(","):
            start = time.monotonic()
            inside = Path(folder) / part
            inside.mkdir()
            found[part] = PARTS[part](inside, arguments.seconds, place)
            say(f"{part}: {time.monotonic() - start:.0f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
