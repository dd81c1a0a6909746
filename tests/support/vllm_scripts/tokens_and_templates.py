import json
import sys
import tempfile

from vllm import LLM, SamplingParams, TokensPrompt
from vllm.inputs import TextPrompt

model, rows = sys.argv[1], [{"id": i, "question": f"What is {i} + 5?"} for i in range(12)]
llm = LLM(model=model, tokenizer=model, quantization=None, max_num_batched_tokens=256, kv_cache_memory_bytes=64 << 20)
tokenizer = llm.get_tokenizer()

prompts = [
    tokenizer.apply_chat_template([{"role": "user", "content": row["question"]}], tokenize=False, add_generation_prompt=True)
    for row in rows
]
params = SamplingParams(temperature=0.0, max_tokens=128, skip_special_tokens=True)
outputs = llm.generate(prompts, params)

with tempfile.NamedTemporaryFile("w+", suffix=".jsonl") as f:
    for row, output in zip(rows, outputs):
        thinking, _, answer = output.outputs[0].text.partition("</think>")
        f.write(json.dumps({**row, "answer": answer.strip(), "tokens": len(output.outputs[0].token_ids)}) + "\n")
    f.seek(0)
    answers = [json.loads(line) for line in f]
print(answers[0], answers[-1])
assert sum(str(row["id"] + 5) in row["answer"] for row in answers) >= 9

ids = tokenizer.encode("Hello, my name is")
by_ids = llm.generate(TokensPrompt(prompt_token_ids=ids), params)[0]
by_text = llm.generate(TextPrompt(prompt="Hello, my name is"), params)[0]
assert by_ids.prompt_token_ids == by_text.prompt_token_ids == ids
assert by_ids.outputs[0].token_ids == by_text.outputs[0].token_ids
assert by_ids.prompt is None and tokenizer.decode(ids) == by_text.prompt
