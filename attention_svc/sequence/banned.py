"""Which ids would complete a banned sequence if they came next?"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class BannedSequences:
    """Found by the id before their last one, so that a step looks at few of them."""

    def __init__(self, sequences: Sequence[tuple[int, ...]]):
        """`sequences`: none is empty."""
        self._always = [ids[0] for ids in sequences if len(ids) == 1]
        self._after: dict[int, list[tuple[list[int], int]]] = defaultdict(list)
        for *before, last in (ids for ids in sequences if len(ids) > 1):
            self._after[before[-1]].append((before, last))

    def next_ids(self, output_ids: Sequence[int]) -> NDArray[np.int64]:
        """Those that may not follow this output."""
        found = list(self._always)
        for before, last in self._after.get(output_ids[-1], ()) if output_ids else ():
            if list(output_ids[-len(before) :]) == before:
                found.append(last)
        return np.array(found, np.int64)
