"""Which tokens has a sequence seen, and how often did it output them? For penalties."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class SeenTokens:
    """Each id once, with its count in the output; kept up to date token by token."""

    def __init__(self, prompt_ids: Sequence[int]):
        """`prompt_ids`: ids that count as seen, but not as output."""
        self._ids = np.unique(np.asarray(prompt_ids, dtype=np.int64))
        self._counts = np.zeros(len(self._ids), np.float32)
        self._place_of = {token_id: place for place, token_id in enumerate(self._ids.tolist())}
        self._taken = 0

    def update(self, output_ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and their counts for this output: the one before, and more tokens."""
        for token_id in output_ids[self._taken :]:
            place = self._place_of.setdefault(token_id, len(self._place_of))
            if place == len(self._ids):
                self._ids = np.resize(self._ids, 2 * place + 16)
                self._counts = np.concatenate([self._counts, np.zeros(place + 16, np.float32)])
            self._ids[place] = token_id
            self._counts[place] += 1
        self._taken = len(output_ids)
        size = len(self._place_of)
        return self._ids[:size], self._counts[:size]
