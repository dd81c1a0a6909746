import random
import sys
import time

from vllm import LLM, SamplingParams

random.seed(0)
num_seqs, max_input_len, max_output_len = 24, 48, 32
llm = LLM(model=sys.argv[1], enforce_eager=False, max_model_len=1024, max_num_seqs=24, block_size=16)
prompt_token_ids = [[random.randint(300, 2000) for _ in range(random.randint(8, max_input_len))] for _ in range(num_seqs)]
sampling_params = [
    SamplingParams(temperature=0.6, ignore_eos=True, max_tokens=random.randint(8, max_output_len)) for _ in range(num_seqs)
]
llm.generate(["Benchmark: "], SamplingParams())
t = time.time()
outputs = llm.generate([dict(prompt_token_ids=p) for p in prompt_token_ids], sampling_params, use_tqdm=False)
t = time.time() - t
total_tokens = sum(sp.max_tokens for sp in sampling_params)
assert sum(len(o.outputs[0].token_ids) for o in outputs) == total_tokens
print(f"Total: {total_tokens}tok, Time: {t:.2f}s, Throughput: {total_tokens / t:.2f}tok/s")
