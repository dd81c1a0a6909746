"""How many tokens has each expert had, in how many steps? Counts include every step so far."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.activations import COUNTED_AT_ONCE, ActivationCounts

LAYERS, EXPERTS, TOP_K = 3, 5, 2


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.booleans(), st.booleans(), st.booleans()),
        max_size=2 * COUNTED_AT_ONCE + 5,
    ),
    st.integers(0, 2**32 - 1),
)
def test_every_step_is_counted_once_however_late(
    steps: list[tuple[int, bool, bool, bool]], seed: int
):
    """Each step: its rows, whether it is decode, given as one array or by layer, and looked at."""
    generator = np.random.default_rng(seed)
    counts, told = ActivationCounts(LAYERS, EXPERTS), []
    counts.listeners.append(lambda ids, is_decode: told.append((np.asarray(ids), is_decode)))
    tokens = np.zeros((LAYERS, EXPERTS), dtype=np.int64)
    used, delta = np.zeros_like(tokens), np.zeros_like(tokens)
    for num_rows, is_decode, as_one, looked_at in steps:
        ids_LTK = generator.integers(0, EXPERTS, (LAYERS, num_rows, TOP_K), dtype=np.int32)
        counts.add_step(ids_LTK if as_one else list(ids_LTK), is_decode=is_decode)
        assert told[-1][1] == is_decode
        assert (told[-1][0] == ids_LTK).all()
        for layer_idx, ids_TK in enumerate(ids_LTK):
            np.add.at(tokens[layer_idx], ids_TK.ravel(), 1)
            used[layer_idx, np.unique(ids_TK)] += 1
        if looked_at:
            assert (counts.counts == tokens).all()
            delta += counts.take_delta()[0]
    assert (counts.steps == used).all()
    assert (delta + counts.take_delta()[0] == tokens).all()
