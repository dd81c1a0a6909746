"""Which examples does hypothesis draw?"""

from hypothesis import settings


def test_examples_are_the_same_everywhere_but_where_random_ones_are_asked_for() -> None:
    """Elsewhere a run that passes here would say little of one in CI."""
    assert settings.get_current_profile_name() in ("ci", "random")
    usual, random = settings.get_profile("ci"), settings.get_profile("random")
    assert (usual.derandomize, random.derandomize) == (True, False)
    assert usual.deadline is random.deadline is None
