"""How is the tokenizer made? Byte-level BPE over generated conversations.

    python -m demo_model.train_tokenizer            # writes demo_model/model/tokenizer.json

Every digit and every Han character stands alone before merging, so numbers are read
digit by digit and unseen Chinese wordings fall into known characters. M2's role and turn
markers are special tokens; its thinking and tool tags are added tokens but not special.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from demo_model import chat
from demo_model.conversation import make
from demo_model.draw import Draw
from demo_model.phrasings import LANGUAGES

MODEL_FOLDER = Path(__file__).with_name("model")
VOCAB_SIZE = 3072
PADDING = "]!p~["
MARKERS = re.compile(
    "|".join(map(re.escape, (*chat.SPECIAL_TOKENS, *chat.ADDED_TOKENS, chat.TOKEN_BORDER)))
)


def corpus(conversations: int, seed: int) -> Iterator[str]:
    """Generated text, cut at every marker so that no merge runs across one."""
    rng = random.Random(f"tokenizer-{seed}")
    for _ in range(conversations):
        conversation = make(Draw(rng=rng, language=rng.choice(LANGUAGES)))
        for text, _ in chat.render(conversation):
            yield from filter(None, MARKERS.split(text))
    for letter in "abcdefghijklmnopqrstuvwxyz":
        yield from [f" {letter}", f" {letter.upper()}"] * 100


def train(conversations: int = 40_000, seed: int = 0) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[0-9]|\p{Han}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    markers = (*chat.SPECIAL_TOKENS, *chat.ADDED_TOKENS, PADDING)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(markers),
        min_frequency=20,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(conversations, seed), trainer)
    special = (*chat.SPECIAL_TOKENS, PADDING)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.add_tokens(
        [AddedToken(t, special=False, normalized=False) for t in chat.ADDED_TOKENS]
    )
    return tokenizer


def tokenizer_config(tokenizer: Tokenizer, context: int) -> dict[str, Any]:
    added = {}
    for token in (*chat.SPECIAL_TOKENS, PADDING, *chat.ADDED_TOKENS):
        added[str(tokenizer.token_to_id(token))] = {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token not in chat.ADDED_TOKENS,
        }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": added,
        "bos_token": chat.START,
        "eos_token": chat.END_OF_TURN,
        "pad_token": PADDING,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--conversations", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train(arguments.conversations, arguments.seed)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    config = json.dumps(tokenizer_config(tokenizer, 32_768), indent=2, ensure_ascii=False)
    (arguments.out / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
    print(f"{tokenizer.get_vocab_size()} tokens -> {arguments.out}")


if __name__ == "__main__":
    main()
