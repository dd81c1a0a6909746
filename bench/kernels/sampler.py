"""What does sampling one step cost, by control? M2's vocabulary, no model.

    python bench/kernels/sampler.py [--batch 32] [--vocab 200064] [--threads 1]

Logits are noise of the given spread: a flat distribution with thousands of likely tokens, hard for
top_p and plain temperature; a model's are few. The last line is JSON: median milliseconds by
control.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch

from attention_svc.sampling.sampler import sample
from attention_svc.sequence.params import read_params
from attention_svc.sequence.sequence import Sequence
from protos import attention_pb2

PROMPT_TOKENS, OUTPUT_TOKENS = 4_000, 64
CONTROLS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "top_k 40, top_p 0.95": {"temperature": 1.0, "top_k": 40, "top_p": 0.95},
    "top_p 0.95": {"temperature": 1.0, "top_p": 0.95},
    "min_p 0.05": {"temperature": 1.0, "min_p": 0.05},
    "temperature only": {"temperature": 1.0},
    "repetition penalty": {"repetition_penalty": 1.1},
    "presence and frequency": {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    "300 biases": {"logit_bias": [attention_pb2.LogitBias(token_id=i, bias=1) for i in range(300)]},
    "min_tokens": {"min_tokens": 500},
    "20 top_logprobs": {"logprobs": True, "top_logprobs": 20},
}


def median_ms(logits_BV: torch.Tensor, fields: dict[str, Any], rounds: int) -> float:
    batch, vocab = logits_BV.shape
    history = torch.randint(0, vocab, (PROMPT_TOKENS,)).tolist()
    known = {"top_p": 1.0, "repetition_penalty": 1.0, "max_tokens": 1000}
    sequences = [
        Sequence(
            request_id="bench",
            prompt_ids=history,
            output_ids=history[:OUTPUT_TOKENS],
            params=read_params(
                attention_pb2.SamplingParams(**{**known, **fields, "seed": i}), vocab
            ),
            stop_ids=frozenset({5, 6}),
        )
        for i in range(batch)
    ]
    times = []
    for _ in range(rounds + 1):
        fresh_BV = logits_BV.clone()
        start = time.perf_counter()
        sample(fresh_BV, sequences)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--vocab", type=int, default=200_064)
    parser.add_argument(
        "--spread", type=float, default=4.0, help="standard deviation of the logits"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    logits_BV = args.spread * torch.randn(args.batch, args.vocab)
    result = {}
    for name, fields in CONTROLS.items():
        result[name] = round(median_ms(logits_BV, fields, args.rounds), 2)
        print(f"{name:24s}{result[name]:10.2f} ms")
    print(json.dumps({"sampler_ms": result, "batch": args.batch, "vocab": args.vocab}))


if __name__ == "__main__":
    main()
