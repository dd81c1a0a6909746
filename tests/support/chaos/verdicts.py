"""Was every answer under load right?"""

from tests.support.chaos.rig import Rig
from tests.support.chaos.streams import Load


def assert_right(rig: Rig, load: Load) -> None:
    verdict = rig.oracle.check(load.histories)
    assert verdict.right, verdict.problems[:5]
