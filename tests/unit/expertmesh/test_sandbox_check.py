"""`expertmesh doctor` says which sandbox holds, or why none does and what to install."""

from pathlib import Path

import pytest

from expertmesh.agent.sandbox import choose
from expertmesh.agent.sandbox.policy import SandboxUnavailableError
from expertmesh.check import Verdict
from expertmesh.doctor import check_sandbox
from tests.support.expertmesh.sandbox.users import ROOT_USER, some_user
from tests.support.expertmesh.sandbox.working import why_not


def test_the_sandbox_that_holds_is_named() -> None:
    user = some_user()
    if reason := why_not("bubblewrap", ROOT_USER if user.is_another else user):
        pytest.skip(reason)
    check = check_sandbox()
    assert (check.name, check.verdict, check.advice) == ("agent sandbox", Verdict.OK, "")
    assert check.found.startswith("bubblewrap ")
    assert check.found.endswith(" (network, files, processes)")


def test_without_one_nothing_fails_and_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(work: Path) -> None:
        raise SandboxUnavailableError("No sandbox works here.\nbubblewrap: missing\nInstall it.")

    monkeypatch.setattr(choose, "choose_sandbox", none)
    check = check_sandbox()
    assert check.verdict is Verdict.WARNING
    assert check.found == "No sandbox works here.\nbubblewrap: missing"
    assert check.advice == "Install it."
