"""A model class as one writes it around vLLM's `LLM`: only the import differs.

    python examples/vllm_style.py --model FOLDER [--max-model-len 131072]

Arguments that mean nothing here (tensor_parallel_size and the like) are logged, a line each.
"""

import argparse
from collections.abc import Iterator

from expertmesh import LLM, SamplingParams


class Model:
    """Batches, chats and streams from one engine in this process."""

    def __init__(self, name: str, *, max_model_len: int, tensor_parallel_size: int = 8):
        """Loading takes as long as reading the checkpoint."""
        self.llm = LLM(
            model=name,
            tensor_parallel_size=tensor_parallel_size,
            gpu_memory_utilization=0.92,
            max_model_len=max_model_len,
            trust_remote_code=True,
            enable_expert_parallel=True,
            enforce_eager=False,
            tool_call_parser="minimax_m2",
        )
        tokenizer = self.llm.get_tokenizer()
        self.params = SamplingParams(
            temperature=1.0,
            top_p=0.95,
            top_k=40,
            max_tokens=48,
            stop_token_ids=[tokenizer.eos_token_id],
            seed=7,
        )

    def batch(self, prompts: list[str], max_tokens: int) -> list[str]:
        """One text for each prompt."""
        params = self.params.copy()
        params.max_tokens = max_tokens
        return [output.outputs[0].text for output in self.llm.generate(prompts, params)]

    def chat(self, messages: list[dict[str, str]]) -> str:
        """The model's raw answer, with its thinking."""
        return self.llm.chat(messages, self.params)[0].outputs[0].text

    def stream(self, prompt: str) -> Iterator[str]:
        """The text as it grows, in pieces."""
        shown = ""
        for output in self.llm.generate([prompt], self.params, stream=True):
            text = output.outputs[0].text
            yield text[len(shown) :]
            shown = text


def main() -> None:
    """Show each of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--max-model-len", type=int, default=131_072)
    flags = parser.parse_args()
    model = Model(flags.model, max_model_len=flags.max_model_len)
    print("context:", model.llm.max_model_len)
    for text in model.batch(["Experts are", "A mesh is"], max_tokens=12):
        print("batch:", repr(text))
    print("chat:", repr(model.chat([{"role": "user", "content": "What is 47 + 15?"}])))
    print("stream:", repr("".join(model.stream("Attention is"))))
    tokens = {m.name: m for m in model.llm.get_metrics()}["expertmesh_attention_generated_tokens"]
    print("tokens:", tokens.value)


if __name__ == "__main__":
    main()
