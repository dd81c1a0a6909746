"""No attack on a sandbox succeeds, by either mechanism, started as root or as a user."""

import ast
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.expertmesh.sandbox import attacks
from tests.support.expertmesh.sandbox.users import ROOT_USER, some_user
from tests.support.expertmesh.sandbox.working import open_folder, run, why_not
from tests.support.expertmesh.sandbox.world import make_world
from tests.support.syntax import nodes

CODE = sorted(Path(attacks.__file__).parent.glob("*.py"))
ATTACKS = [
    node.name
    for path in CODE
    for node in nodes(path)
    if isinstance(node, ast.FunctionDef)
    and {"attack", "alone"} & {one.id for one in node.decorator_list if isinstance(one, ast.Name)}
]
WITHOUT_A_SANDBOX = {
    "make_a_program_with_its_owners_rights",
    "read_a_file_outside", "list_a_folder_outside", "read_by_way_of_dots",
    "read_by_a_link_that_was_there", "read_by_a_new_link", "read_through_other_roots",
    "read_by_a_folder_that_is_only_held", "change_a_file_outside", "change_by_a_link",
    "create_a_file_outside", "create_by_a_link", "create_by_a_folder_that_is_only_held",
    "remove_a_file_outside", "move_a_file_out", "make_a_folder_outside",
    "change_the_mode_of_a_file_outside", "change_a_mode_by_a_link", "link_a_file_in",
    "change_a_mode_by_a_file_that_is_only_held", "change_the_times_of_a_file_outside",
    "change_the_times_of_a_readable_file", "give_a_file_outside_to_another_group",
    "set_flags_of_a_readable_file", "see_shared_memory_of_others",
    "change_gits_configuration", "replace_gits_configuration",
    "write_gits_configuration_by_a_link", "write_gits_configuration_by_a_symbolic_link",
    "point_git_elsewhere", "add_a_hook", "make_a_hook_executable", "exchange_git",
    "change_a_protected_file", "move_the_folder_of_a_protected_file",
    "make_what_is_missing_and_protected", "find_secrets_in_other_processes",
    "limit_a_process_outside", "slow_a_process_outside_down",
    "bind_a_process_outside_to_a_core", "connect_by_tcp", "connect_by_tcp_to_all_addresses",
    "connect_to_a_unix_socket", "connect_to_an_abstract_socket", "watch_a_folder_outside",
    "run_a_file_in_memory", "share_memory_with_others", "read_shared_memory_of_others",
    "open_a_file_by_its_handle", "be_traced", "change_how_programs_are_loaded",
    "allow_a_crash_handler",
    "truncate_a_file_outside", "move_a_file_in", "signal_a_process_outside",
}  # fmt: skip
"""What these attacks get by the same user's rights, so that here it is the sandbox that refuses."""


@dataclass(frozen=True)
class Battle:
    results: dict[str, str | None]
    changes: list[str]
    ending: dict[str, Any]


def fight(kind: str, starter: str, names: list[str]) -> Battle:
    """All attacks, one after the other, and what the host finds afterwards."""
    user = some_user()
    who = ROOT_USER if starter == "root" else user
    if reason := why_not(kind, who):
        pytest.skip(reason)
    with open_folder(user) as folder:
        world = make_world(folder, user)
        try:
            for code in CODE:
                shutil.copy(code, world.work)
            (world.work / "world.json").write_text(json.dumps(world.known))
            argv = ["python3", "attacking.py", "world.json", *names]
            left_open = os.open(world.known["secret"], os.O_RDWR)
            (outcome,) = run(
                who,
                {
                    "kind": kind,
                    "work": str(world.work),
                    "protected": ["deep/er/state", "missing/part"],
                    "runs": [{"argv": argv}],
                },
                variables={"OPENAI_API_KEY": world.known["token"], "DISPLAY": ":0"},
                pass_fds=[left_open],
            )
            os.close(left_open)
            changes = world.changes()
        finally:
            world.close()
    assert outcome["exit_code"] == 0, outcome
    return Battle(json.loads(outcome["stdout"].splitlines()[-1]), changes, outcome)


@pytest.fixture(
    scope="module",
    params=[(kind, who) for kind in ("bubblewrap", "landlock") for who in ("root", "user")],
    ids="-".join,
)
def battle(request: pytest.FixtureRequest) -> Battle:
    return fight(*request.param, names=[])


@pytest.fixture(scope="module")
def massacre() -> Battle:
    return fight("none", "user", names=sorted(WITHOUT_A_SANDBOX))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fails(battle: Battle, name: str) -> None:
    assert battle.results[name] is None


def test_all_attacks_were_tried(battle: Battle) -> None:
    assert set(battle.results) == set(ATTACKS)
    assert len(ATTACKS) > 100


def test_nothing_outside_has_changed(battle: Battle) -> None:
    assert battle.changes == []


@pytest.mark.parametrize("name", sorted(WITHOUT_A_SANDBOX))
def test_without_a_sandbox_the_same_attack_succeeds(massacre: Battle, name: str) -> None:
    assert massacre.results[name]


def test_without_a_sandbox_the_host_finds_the_changes(massacre: Battle) -> None:
    assert len(massacre.changes) > 10
