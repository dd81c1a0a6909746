"""What does the prefix cache save on a conversation's second turn, and on n choices?

A small seeded model in this process, behind the attention service's own servicer. In every round,
with new tokens: a first turn makes a conversation of the given length; a second turn adds a few
tokens to it, once as the tenant of the first turn (warm) and once as a tenant with nothing cached
(cold), in alternating order; then n choices of one prompt are requested at once. The last line is
JSON: medians, and the tokens computed for each prompt.

    python bench/engine/prefix.py [--conversation 4000] [--added 64] [--rounds 5] [--choices 4]
"""

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from attention_svc.config import BLOCK_SIZE, AttentionConfig
from attention_svc.running import without_server
from attention_svc.servicer import AttentionServicer
from expertmesh.offline.local_pool import LocalContext
from moe_model.tiny import write_tiny
from protos import attention_pb2

VOCAB, ANSWER_TOKENS = 2048, 40


@dataclass(frozen=True)
class Answer:
    """One call: seconds to its first token, its tokens, and computed tokens of its prompt."""

    ttft_s: float
    token_ids: list[int]
    num_computed: int


async def ask(
    servicer: AttentionServicer, prompt: list[int], salt: str, max_tokens: int = 1, choice: int = 0
) -> Answer:
    message = attention_pb2.GenerateRequest(
        prompt_token_ids=prompt,
        cache_salt=salt,
        choice_idx=choice,
        sampling=attention_pb2.SamplingParams(
            top_p=1.0, repetition_penalty=1.0, max_tokens=max_tokens, ignore_eos=True
        ),
    )
    start = time.perf_counter()
    first_s, tokens = 0.0, []
    async for event in servicer.Generate(message, LocalContext()):
        if event.HasField("tokens"):
            first_s = first_s or time.perf_counter() - start
            tokens += event.tokens.token_ids
        elif event.finished.error:
            raise RuntimeError(event.finished.error)
        else:
            usage = event.finished.usage
    return Answer(first_s, tokens, usage.prompt_tokens - usage.cached_tokens)


async def measure(servicer: AttentionServicer, args: argparse.Namespace) -> dict[str, object]:
    chance = random.Random(0)
    turns: dict[str, list[Answer]] = {"cold": [], "warm": []}
    choices_computed = []
    for index in range(args.rounds + 1):  # the first round warms up

        def text(count: int) -> list[int]:
            return [chance.randrange(VOCAB) for _ in range(count)]

        prompt = text(args.conversation - ANSWER_TOKENS)
        first = await ask(servicer, prompt, f"warm-{index}", ANSWER_TOKENS)
        second = [*prompt, *first.token_ids, *text(args.added)]
        kinds = ["cold", "warm"] if index % 2 else ["warm", "cold"]
        answers = {kind: await ask(servicer, second, f"{kind}-{index}") for kind in kinds}
        assert answers["cold"].token_ids == answers["warm"].token_ids, "the cache changed a token"
        asked = text(args.conversation)
        crowd = await asyncio.gather(
            *(ask(servicer, asked, "", 4, choice) for choice in range(args.choices))
        )
        if not index:
            continue
        for kind, answer in answers.items():
            turns[kind].append(answer)
        choices_computed.append(sum(answer.num_computed for answer in crowd))
        print(
            f"round {index}: cold {1e3 * answers['cold'].ttft_s:.1f} ms, "
            f"warm {1e3 * answers['warm'].ttft_s:.1f} ms",
            file=sys.stderr,
        )
    ttft_ms = {kind: 1e3 * statistics.median(a.ttft_s for a in turns[kind]) for kind in turns}
    ratios = [c.ttft_s / w.ttft_s for c, w in zip(turns["cold"], turns["warm"], strict=True)]
    computed = max(answer.num_computed for answer in turns["warm"])
    return {
        "conversation_tokens": args.conversation,
        "added_tokens": args.added,
        "block_size": BLOCK_SIZE,
        "second_turn_computed_tokens": computed,
        "less_than_a_block_more": computed < args.added + BLOCK_SIZE,
        "ttft_ms": {kind: round(value, 2) for kind, value in ttft_ms.items()},
        "ttft_cold_over_warm": round(statistics.median(ratios), 1),
        "choices": args.choices,
        "choices_computed_tokens": max(choices_computed),
        "machine": platform.processor() or platform.machine(),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversation", type=int, default=4000, help="tokens before turn two")
    parser.add_argument("--added", type=int, default=64, help="tokens of the second question")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--choices", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="compute threads (0: all cores)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(
            Path(folder),
            vocab_size=VOCAB,
            hidden_size=256,
            num_hidden_layers=4,
            head_dim=64,
            num_attention_heads=8,
            num_key_value_heads=2,
            rotary_dim=32,
            intermediate_size=256,
            num_local_experts=16,
            num_experts_per_tok=4,
            max_position_embeddings=args.conversation + args.added + 64,
        )
        config = AttentionConfig(
            model=Path(folder), transport="in_process", kv_memory="1GiB", threads=args.threads
        )
        async with without_server(config) as running:
            result = await measure(running.servicer, args)
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
