"""How --load is spelled, and what a misspelled one is told."""

import pytest

from moe_model.weights.load_flag import Seeded, parse_load


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("random:0", Seeded(seed=0)),
        ("random:7,skew=1.5", Seeded(seed=7, skew=1.5)),
        (f"random:{2**63 - 1},skew=0", Seeded(seed=2**63 - 1)),
    ],
)
def test_a_seed_and_a_skew(text: str, expected: Seeded | None) -> None:
    assert parse_load(text) == expected
    assert expected is None or parse_load(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("random", "random:", "random:x", "random:-1", "random:1,2", "random:1,skew=", "Random:1"),
        *("random:1,skew=-1", "random:1,skew=nan", "random:1,skew=1e9", "random:1 ", "dummy"),
        *("random:\u0661", "random:1,skew=2,skew=3", "random:1" * 1000),
    ],
)
def test_other_spellings_are_refused_with_the_right_ones(text: str) -> None:
    with pytest.raises(ValueError, match=r"--load takes random:SEED or random:SEED,skew=X"):
        parse_load(text)


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="seed must be at most"):
        parse_load(f"random:{2**63}")
    with pytest.raises(ValueError, match="skew must be at most 1000"):
        parse_load("random:1,skew=1000.5")
