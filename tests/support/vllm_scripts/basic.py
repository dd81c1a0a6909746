import sys

from vllm import LLM, SamplingParams

prompts = [
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
]
sampling_params = SamplingParams(temperature=0.8, top_p=0.95)


def main():
    llm = LLM(model=sys.argv[1], trust_remote_code=True, tensor_parallel_size=1, gpu_memory_utilization=0.9, max_model_len=512)
    outputs = llm.generate(prompts, sampling_params)
    assert len(outputs) == len(prompts)
    for prompt, output in zip(prompts, outputs):
        assert output.prompt == prompt
        generated_text = output.outputs[0].text
        assert 1 <= len(output.outputs[0].token_ids) <= 16
        print(f"Prompt: {output.prompt!r}, Generated text: {generated_text!r}")


if __name__ == "__main__":
    main()
