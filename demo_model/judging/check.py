"""How often does a checkpoint take the right step, by family and by what is held out?

python -m demo_model.judging.check --model demo_model/model --per-family 20
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from demo_model import chat, checkpoint_format, scoring
from demo_model.answers import answers, deadlines
from demo_model.dataset import Encoder
from demo_model.draw import Split
from demo_model.generate import GREEDY, SERVED, Decoder, Sampling
from demo_model.judging import replies, steps
from demo_model.judging.replies import Said
from demo_model.judging.steps import Step
from demo_model.network import Weights

MAX_NEW = 400
BATCH_TOKENS = {"cuda": 300_000, "cpu": 30_000}
MODES: dict[str, tuple[Split, Sampling]] = {
    "held-out pairs": (Split.OPERANDS, GREEDY),
    "held-out templates": (Split.TEMPLATES, GREEDY),
    "held-out phrasings": (Split.PHRASINGS, GREEDY),
    "sampled": (Split.OPERANDS, SERVED),
}


def ask(
    decoder: Decoder, encoder: Encoder, asked: list[Step], sampling: Sampling, deadline: float
) -> list[tuple[Step, Said]]:
    """Answers to the steps, prompts of like length together, until the time is up."""
    prompts = [encoder.encode(step.prompt)[0] for step in asked]
    batches = _batches(prompts, BATCH_TOKENS[decoder.device.type])
    found = answers(
        decoder, encoder, prompts, batches, max_new=MAX_NEW, sampling=sampling, deadline=deadline
    )
    return [(asked[i], replies.read(text)) for i, text in found]


def _batches(prompts: list[list[int]], most: int) -> Iterator[list[int]]:
    """Indices of prompts, sorted by length, of at most so many tokens together with padding."""
    batch: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        if batch and (len(batch) + 1) * (len(prompts[i]) + MAX_NEW) > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def check(weights: Weights, folder: Path, *, per_family: int, seconds: float) -> dict[str, Any]:
    """Tables of every mode, as far as the time allows, and what was wrong."""
    decoder = Decoder(weights, checkpoint_format.load_shape(folder))
    encoder = Encoder(folder / "tokenizer.json")
    tables: dict[str, steps.Table] = {}
    wrong = []
    for name, deadline in deadlines(tuple(MODES), seconds):
        split, sampling = MODES[name]
        pairs = ask(decoder, encoder, steps.draw(split, per_family), sampling, deadline)
        tables[name] = steps.tally(pairs)
        wrong += [
            {
                "mode": name,
                "family": step.family,
                "language": step.language,
                "before": step.messages[-1]["content"][-1500:],
                "wanted": chat.plain(chat.completion(step.wanted)),
                "got": f"{said.thinking}\n---\n{said.content}\n{said.calls}",
            }
            for step, said in pairs
            if not steps.is_right(step, said)
        ]
    return {"families": tables, "wrong_steps": wrong}


def main() -> None:
    from demo_model.self_check import load_for

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "model")
    parser.add_argument("--per-family", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop asking after so long")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print everything, mistakes included")
    arguments = parser.parse_args()
    found = check(
        load_for(arguments.model, arguments.device),
        arguments.model,
        per_family=arguments.per_family,
        seconds=arguments.seconds,
    )
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        print(scoring.render_table(found["families"]))


if __name__ == "__main__":
    main()
