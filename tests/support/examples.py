"""How many random examples does a test try: a few in the fast suite, many in the slow one?"""

from typing import Any

from hypothesis import settings

ALL = 100
"""`max_examples` of the profiles with which `make test-slow` and `make test-random` run them again.

Every test that pytest knows to be random: where `@given` is inside the test, the test has to carry
`pytest.mark.hypothesis`.
"""
AT_LEAST = 10
"""Tests whose examples are whole worlds try few, and none of these is spared."""


def examples(many: int, few: int | None = None, **others: Any) -> settings:
    """Hypothesis's settings: `many` examples in the slow suite.

    In the fast suite `few`, or else the share that the profile has of 100 (tests/conftest.py).
    """
    share = settings().max_examples
    if share >= ALL:
        count = many
    else:
        count = few or max(many * share // ALL, min(many, AT_LEAST))
    return settings(max_examples=count, **others)
