"""How fast is Transformers' MiniMaxM2ForCausalLM? JSON lines on stdin, JSON lines out.

`python -m bench.engine.transformers_worker MODEL THREADS`. For a line {"prompts": [[ids]],
"tokens": n} the answer has `prefill_s` (the forward over the prompts), `decode_s` (n - 1 greedy
steps), and the same in CPU seconds of all threads.
"""

import json
import sys
import time
from typing import TextIO

import torch
from transformers import DynamicCache, MiniMaxM2ForCausalLM


def main() -> None:
    folder, threads = sys.argv[1], int(sys.argv[2])
    answers, sys.stdout = sys.stdout, sys.stderr  # keeps progress bars out of the answers
    torch.set_num_threads(threads)
    model = MiniMaxM2ForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, experts_implementation="grouped_mm", local_files_only=True
    ).eval()
    serve(model, answers)


@torch.inference_mode()
def serve(model: MiniMaxM2ForCausalLM, answers: TextIO) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        ids = torch.tensor(request["prompts"])
        cache = DynamicCache(config=model.config)
        times, cpu = [time.perf_counter()], [time.process_time()]
        for _ in range(request["tokens"]):
            output = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids = output.logits[:, -1].argmax(dim=-1, keepdim=True)
            times.append(time.perf_counter())
            cpu.append(time.process_time())
        answer = {
            "prefill_s": times[1] - times[0],
            "decode_s": times[-1] - times[1],
            "prefill_cpu_s": cpu[1] - cpu[0],
            "decode_cpu_s": cpu[-1] - cpu[1],
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
