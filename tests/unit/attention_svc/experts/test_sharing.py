"""Experts that several called pools hold: one of them computes each, evenly by work."""

from hypothesis import given
from hypothesis import strategies as st

from attention_svc.experts.sharing import share_out

EXPERTS = 6


@st.composite
def layers(draw):
    names = "abc"[: draw(st.integers(1, 3))]
    held = {name: draw(st.sets(st.integers(0, EXPERTS - 1))) for name in names}
    left = set().union(*held.values())
    shares = {}
    for name in names:
        shares[name] = held[name] & left
        left = left - held[name]
    weight = draw(st.lists(st.floats(0.1, 10), min_size=EXPERTS, max_size=EXPERTS))
    return shares, held, weight


@given(layers())
def test_each_expert_stays_with_one_pool_that_holds_it(layer):
    shares, held, weight = layer
    shared = share_out(shares, held, weight)
    assert list(shared) == list(shares)
    assert all(shared[name] <= held[name] for name in shared)
    assert sorted(e for experts in shared.values() for e in experts) == sorted(
        e for experts in shares.values() for e in experts
    )


def test_the_heavy_go_where_least_is_done():
    held = {"a": {0, 1, 2, 3}, "b": {0, 1, 4, 5}}
    shares = {"a": {0, 1, 2, 3}, "b": {4, 5}}
    hot = [9.0, 2.0, 1.0, 1.0, 4.0, 4.0]
    assert share_out(shares, held, hot) == {"a": {0, 2, 3}, "b": {1, 4, 5}}
    assert share_out({"a": {0}}, {"a": {0}}, hot) == {"a": {0}}
