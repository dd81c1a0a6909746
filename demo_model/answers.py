"""What does a checkpoint answer to prompts that are at hand? A batch of them at a time."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

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
) -> Iterator[tuple[int, str]]:
    """(index of a prompt, text up to the end of the turn), in the order of `batches`.

    Args:
        batches: indices of prompts; the next one is asked for when the last one is answered.
    """
    end_id = token_id(encoder.tokenizer, chat.END_OF_TURN)
    for chosen in batches:
        completions = decoder.complete(
            [prompts[i] for i in chosen], end_id=end_id, max_new=max_new, sampling=sampling
        )
        for i, ids in zip(chosen, completions, strict=True):
            yield i, encoder.tokenizer.decode(ids, skip_special_tokens=False)


def until(deadline: float, batches: Iterable[list[int]]) -> Iterator[list[int]]:
    """Those that can be begun before this moment of `time.monotonic()`."""
    return takewhile(lambda _: time.monotonic() <= deadline, batches)


def deadlines(names: Sequence[str], seconds: float) -> Iterator[tuple[str, float]]:
    """Each name with the moment by which it has to be done: an equal share of the time left."""
    end = time.monotonic() + seconds
    for done, name in enumerate(names):
        now = time.monotonic()
        yield name, now + max(0.0, end - now) / (len(names) - done)
