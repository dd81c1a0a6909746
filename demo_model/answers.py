"""What does a checkpoint answer to prompts that are at hand? A batch of them at a time."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence

from demo_model import chat
from demo_model.dataset import Encoder, token_id
from demo_model.generate import Decoder, Sampling


def answers(
    decoder: Decoder,
    encoder: Encoder,
    prompts: list[list[int]],
    batches: Iterable[list[int]],
    *,
    max_new: int,
    sampling: Sampling,
    deadline: float = math.inf,
) -> Iterator[tuple[int, str]]:
    """(index of a prompt, text up to the end of the turn), in the order of `batches`.

    Args:
        batches: indices of prompts that are asked together.
        deadline: moment of `time.monotonic()`; batches that are not answered then are left out.
    """
    end_id = token_id(encoder.tokenizer, chat.END_OF_TURN)
    for chosen in batches:
        completions = decoder.complete(
            [prompts[i] for i in chosen],
            end_id=end_id,
            max_new=max_new,
            sampling=sampling,
            deadline=deadline,
        )
        if time.monotonic() > deadline:
            return
        for i, ids in zip(chosen, completions, strict=True):
            yield i, encoder.tokenizer.decode(ids, skip_special_tokens=False)


def deadlines(names: Sequence[str], seconds: float) -> Iterator[tuple[str, float]]:
    """Each name with the moment by which it has to be done: an equal share of the time left."""
    end = time.monotonic() + seconds
    for done, name in enumerate(names):
        now = time.monotonic()
        yield name, now + max(0.0, end - now) / (len(names) - done)
