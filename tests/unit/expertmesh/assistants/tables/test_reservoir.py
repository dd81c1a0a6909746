"""A fair sample of numbers, and quantiles by it."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.assistants.tables.reservoir import Reservoir
from tests.support.examples import examples

QUARTERS = (0.25, 0.5, 0.75)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50), st.integers(1, 60))
@examples(200)
def test_few_numbers_are_all_kept(numbers: list[float], batch: int) -> None:
    sample = Reservoir(50)
    for at in range(0, len(numbers), batch):
        sample.add(numbers[at : at + batch])
    expected = statistics.quantiles(numbers, n=4, method="inclusive")
    assert sample.quantiles(QUARTERS) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 1000, 100_000])
def test_of_many_every_part_is_kept_alike(batch: int) -> None:
    sample = Reservoir(2_000)
    for at in range(0, 100_000, batch):
        sample.add(range(at, min(at + batch, 100_000)))
    assert sample.is_full
    # The standard error of a quarter in 2,000 draws is below 1 %.
    assert sample.quantiles(QUARTERS) == pytest.approx([25_000, 50_000, 75_000], abs=4_000)


def test_how_numbers_come_in_batches_changes_nothing() -> None:
    found = []
    for batch in (1, 13, 5_000):
        sample = Reservoir(100)
        for at in range(0, 5_000, batch):
            sample.add(range(at, min(at + batch, 5_000)))
        found.append(sample.quantiles(QUARTERS))
    assert found[0] == found[1] == found[2]
