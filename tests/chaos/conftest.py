"""What chaos tests share: two pools that both hold everything, the first behind a proxy."""

from collections.abc import Iterator

import pytest

from tests.support.chaos.proxy import FaultProxy
from tests.support.chaos.rig import ALL, Rig


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("chaos"), (ALL, ALL), "--max-batch-tokens", "64") as running:
        yield running


@pytest.fixture(scope="module")
def proxy(rig: Rig) -> FaultProxy:
    return rig.start_behind_proxy(0)
