"""How good is an exported checkpoint when it is asked without any service?

    python -m demo_model.self_check --model demo_model/model --per-skill 50

Training runs this at its end, on the checkpoint as written to disk.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import torch

from demo_model import chat, checkpoint_format, scoring
from demo_model.answers import answers, deadlines
from demo_model.conversation import make
from demo_model.dataset import Encoder
from demo_model.draw import Draw, Split
from demo_model.generate import GREEDY, SERVED, Decoder, Sampling
from demo_model.network import Weights
from demo_model.phrasings import LANGUAGES
from demo_model.scoring import Question, Reply

MAX_NEW = 320
MODES: dict[str, tuple[Split, Sampling]] = {
    "held-out operands": (Split.OPERANDS, GREEDY),
    "held-out phrasings": (Split.PHRASINGS, GREEDY),
    "sampled": (Split.OPERANDS, SERVED),
}


def ask(
    decoder: Decoder,
    encoder: Encoder,
    questions: list[Question],
    sampling: Sampling,
    batch: int,
    deadline: float = math.inf,
) -> list[tuple[Question, Reply]]:
    """Answers to the questions, prompts of like length together, until the time is up."""
    prompts = []
    for asked in questions:
        answer = chat.assistant("", "")
        conversation = chat.Conversation(
            skill="", language="", messages=[*asked.messages, answer], tools=asked.tools
        )
        prompts.append(encoder.encode(_prompt_of(conversation))[0])
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = (order[i : i + batch] for i in range(0, len(order), batch))
    found = answers(
        decoder, encoder, prompts, batches, max_new=MAX_NEW, sampling=sampling, deadline=deadline
    )
    return [(questions[i], scoring.read_completion(text)) for i, text in found]


def _prompt_of(conversation: chat.Conversation) -> list[chat.Segment]:
    """The rendering up to the last generation prompt."""
    return [(text, False) for text, _ in chat.render(conversation)[:-1]]


def check(
    weights: Weights,
    folder: Path,
    *,
    per_skill: int,
    seconds: float = math.inf,
    batch: int = 1024,
) -> dict[str, Any]:
    """Accuracy in every mode as far as the time allows, calls, and the experts' load."""
    shape = checkpoint_format.load_shape(folder)
    end = time.monotonic() + seconds
    decoder = Decoder(weights, shape)
    encoder = Encoder(folder / "tokenizer.json")
    tables, wrong = {}, []
    formed: dict[str, list[int]] = {}
    for name, deadline in deadlines(tuple(MODES), seconds):
        split, sampling = MODES[name]
        questions = scoring.questions(split, per_skill)
        pairs = ask(decoder, encoder, questions, sampling, batch, deadline)
        tables[name] = scoring.tally(pairs)
        formed[name] = scoring.well_formed_calls(pairs)
        wrong += [
            {
                "mode": name,
                "skill": asked.skill,
                "asked": asked.text,
                "wanted": asked.code or asked.content,
                "got": reply.code or reply.content,
            }
            for asked, reply in pairs
            if not scoring.is_right(asked, reply)
        ]
    loads = decoder.expert_load(held_out_documents(encoder, 200), end)
    return {
        "tables": tables,
        "well_formed_calls": formed,
        "load_max_over_mean": [round(float(x), 3) for x in loads.amax(1) / loads.mean(1)],
        "wrong": wrong,
    }


def held_out_documents(encoder: Encoder, count: int) -> list[list[int]]:
    """Whole conversations about held-out operands, as ids."""
    rng = random.Random("expert-load")
    found = []
    for _ in range(count):
        draw = Draw(rng=rng, language=rng.choice(LANGUAGES), split=Split.OPERANDS)
        found.append(encoder.encode(chat.render(make(draw)))[0])
    return found


def load_for(folder: Path, device: str) -> Weights:
    """The checkpoint's weights, bfloat16 on CUDA and float32 on a CPU, routing in float32."""
    weights, _ = checkpoint_format.load(folder)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return {
        name: value.to(device, torch.float32 if name in ("gate", "bias") else dtype).contiguous()
        for name, value in weights.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model"))
    parser.add_argument("--per-skill", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="print everything, mistakes included")
    arguments = parser.parse_args()
    started = time.monotonic()
    found = check(
        load_for(arguments.model, arguments.device),
        arguments.model,
        per_skill=arguments.per_skill,
        batch=arguments.batch,
    )
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    print(scoring.render_table(found["tables"]))
    print(f"well-formed calls {found['well_formed_calls']}")
    print(f"expert load, max over mean per layer: {found['load_max_over_mean']}")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
