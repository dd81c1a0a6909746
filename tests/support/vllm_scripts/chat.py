import argparse

from vllm import LLM, SamplingParams

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--max-tokens", type=int, default=200)
args = parser.parse_args()

llm = LLM(args.model, enforce_eager=True, dtype="float32", seed=42, disable_log_stats=True)
params = llm.get_default_sampling_params()
params.temperature = 0.0
params.max_tokens = args.max_tokens

conversation = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is 25 + 17?"},
]
outputs = llm.chat(conversation, params, use_tqdm=False)
for o in outputs:
    answer = o.outputs[0].text.split("</think>")[-1].strip()
    print("single:", answer, o.outputs[0].finish_reason)
    assert "42" in answer

batch = [[{"role": "user", "content": f"What is {n} + {n}?"}] for n in range(10, 18)]
outputs = llm.chat(messages=batch, sampling_params=params, use_tqdm=True)
for conv, o in zip(batch, outputs):
    print("batch:", conv[0]["content"], "->", o.outputs[0].text.split("</think>")[-1].strip())
assert sum(str(2 * n) in o.outputs[0].text for n, o in zip(range(10, 18), outputs)) >= 6
