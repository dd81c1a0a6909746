"""Which examples does hypothesis draw?"""

from functools import partial

import pytest
from hypothesis import settings

from tests.support import examples as support
from tests.support.examples import examples


def test_examples_are_the_same_everywhere_but_where_random_ones_are_asked_for() -> None:
    """Elsewhere a run that passes here would say little of one in CI."""
    assert settings.get_current_profile_name() in ("few", "ci", "random")
    few, usual, random = map(settings.get_profile, ("few", "ci", "random"))
    assert (few.derandomize, usual.derandomize, random.derandomize) == (True, True, False)
    assert few.deadline is usual.deadline is random.deadline is None


def test_the_fast_suite_tries_a_share_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {}
    for profile in ("few", "ci", "random"):
        monkeypatch.setattr(support, "settings", partial(settings, settings.get_profile(profile)))
        counts[profile] = [
            examples(many, few).max_examples for many, few in ((400, None), (20, None), (150, 7))
        ]
    assert counts["few"] == [100, support.AT_LEAST, 7]
    assert counts["ci"] == counts["random"] == [400, 20, 150]
