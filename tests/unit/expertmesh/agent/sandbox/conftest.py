"""A sandbox of each kind that works here, with a work folder of a user's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.policy import Sandbox
from tests.support.expertmesh.sandbox.runner import KINDS, make
from tests.support.expertmesh.sandbox.users import ROOT_USER, some_user
from tests.support.expertmesh.sandbox.working import open_folder, why_not


@pytest.fixture
def work() -> Iterator[Path]:
    with open_folder(some_user()) as folder:
        yield folder


@pytest.fixture(params=list(KINDS))
def sandbox(request: pytest.FixtureRequest, work: Path) -> Sandbox:
    user = some_user()
    if reason := why_not(request.param, ROOT_USER if user.is_another else user):
        pytest.skip(reason)
    return make(request.param, work)
