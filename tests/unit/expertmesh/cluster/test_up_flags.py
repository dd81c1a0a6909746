"""Every flag of every service through `expertmesh up`."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import click.testing
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from attention_svc.config import AttentionConfig
from expertmesh.cli import app
from expertmesh.cluster.cluster_plan import plan_cluster
from expertmesh.cluster.options import ClusterOptions
from expertmesh.cluster.service_flags import CONFIGS, DECIDED, Values, check_service, passed_to
from expertmesh.cluster.snippets import ready_text
from expertmesh.commands.up.flags import with_service_flags
from expertmesh.console import CommandError
from gateway.config import GatewayConfig
from moe_model.tiny import write_tiny
from rpc.process.flags import env_name, flags_of

OWN = {
    "model",
    "replicas",
    "attention",
    "dtype",
    "expert_dtype",
    "linear_dtype",
    "kv_memory",
    "threads",
    "log_level",
}
"""Flags of services that `up` has as its own, because it plans with them."""
EXAMPLES = {bool: ["true"], int: ["7"], float: ["7.5"], str: ["text"], Path: ["/file"]}


@cache
def small_up() -> tuple[click.Command, list[Values]]:
    """A command with the service flags, and the list to which it adds what it is given."""
    seen: list[Values] = []

    @with_service_flags
    def up(
        context: typer.Context, *, in_process: bool = typer.Option(False), passed: Values
    ) -> None:
        seen.append(passed)

    small = typer.Typer()
    small.command()(up)
    return typer.main.get_command(small), seen


def given_by(*argv: str, **environ: str) -> Values:
    """The service flags that a command receives."""
    command, seen = small_up()
    done = click.testing.CliRunner().invoke(command, argv, env=environ, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return seen.pop()


def every_flag() -> list[Any]:
    return [
        pytest.param(module, one, id=f"{module}-{one.name}")
        for module, config in CONFIGS.items()
        for one in flags_of(config)
    ]


@pytest.mark.parametrize(("module", "flag"), every_flag())
def test_each_flag_is_passed_on_as_flag_and_from_the_environment_or_refused(module, flag) -> None:
    (text,) = EXAMPLES[flag.kind]
    argv = [flag.option] if flag.kind is bool else [f"{flag.option}={text}"]
    if flag.name in DECIDED:
        with pytest.raises(CommandError, match=f"{flag.option}: `up` decides it itself: "):
            given_by(flag.option, "x")
        return
    if flag.name in OWN:
        return
    expected = [text] if flag.is_list else flag.kind(text)
    assert given_by(*argv)[module][flag.name] == expected
    environ = {env_name(flag.name): text}
    assert given_by(**environ)[module][flag.name] == expected


def test_up_has_every_flag_of_every_service() -> None:
    command = typer.main.get_command(app).commands["up"]
    names = {one.name for one in command.params}
    for config in CONFIGS.values():
        assert {one.name for one in flags_of(config)} <= names | DECIDED.keys()
    assert names >= OWN - {"attention"}
    assert {"request_timeout_s", "gateway_request_timeout_s", "attention_device"} <= names


def test_a_flag_of_several_services_goes_to_all_and_with_a_name_before_it_to_one() -> None:
    passed = given_by("--device", "cuda", "--expert-device", "cpu", "--grace-s", "9")
    assert passed["attention_svc"] == {"device": "cuda", "grace_s": 9.0}
    assert passed["expert_svc"] == {"device": "cpu", "grace_s": 9.0}
    passed = given_by(EXPERTMESH_DEVICE="cuda", EXPERTMESH_EXPERT_DEVICE="cpu")
    assert passed["expert_svc"]["device"] == "cpu"


def test_lists_from_the_environment_are_cut_at_commas_as_in_services() -> None:
    names = {"EXPERTMESH_SERVED_MODEL_NAME": "My Model, other,,", "EXPERTMESH_API_KEY": ""}
    assert given_by(**names)["gateway"] == {"served_model_name": ["My Model", "other"]}
    assert given_by("--cors-origin", "a", "--cors-origin", "b")["gateway"]["cors_origin"] == [
        "a",
        "b",
    ]


def test_pages_and_host_names_are_passed_to_the_gateway() -> None:
    given = given_by("--cors-origin", "https://a.example", "--allowed-host", "gpu.lan")
    assert passed_to("gateway", given).arguments == (
        "--cors-origin=https://a.example",
        "--allowed-host=gpu.lan",
    )


def test_booleans_can_be_taken_back() -> None:
    assert given_by("--no-follow-load")["router_svc"] == {"follow_load": False}
    assert given_by(EXPERTMESH_FOLLOW_LOAD="false")["router_svc"] == {"follow_load": False}
    assert passed_to("router_svc", {"router_svc": {"follow_load": False}}).arguments == (
        "--no-follow-load",
    )


def test_without_pools_their_flags_are_refused_and_their_environment_is_remarked_on(capsys) -> None:
    with pytest.raises(CommandError, match="--lease-ms: with --in-process there is no router"):
        given_by("--in-process", "--lease-ms", "900")
    assert given_by("--in-process", EXPERTMESH_LEASE_MS="900") == {}
    assert given_by("--in-process", "--grace-s", "9") == {"attention_svc": {"grace_s": 9.0}}


def test_a_setting_of_the_environment_that_up_decides_itself_is_remarked_on() -> None:
    done = CliRunner().invoke(
        app,
        ["up", "--model", "/nowhere"],
        env={"EXPERTMESH_LISTEN": "0.0.0.0:80", "EXPERTMESH_ROUTER": "x"},
    )
    assert "EXPERTMESH_LISTEN has no effect on `up`: --http-port" in done.output
    assert "EXPERTMESH_ROUTER has no effect on `up`: `up` starts its own" in done.output


def test_what_is_passed_wins_over_what_up_sets_and_stopping_waits_for_it(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    passed = {
        "gateway": {"drain_s": 90.0, "served_model_name": ["a", "b"]},
        "attention_svc": {"grace_s": 20.0, "request_timeout_s": 0.0},
    }
    plan = plan_cluster(ClusterOptions(model=tmp_path, passed=passed), cores=2)
    by_name = {one.name: one for one in plan.services}
    gateway = check_service("gateway", (*by_name["gateway"].flags, "--router=127.0.0.1:1"), {})
    assert isinstance(gateway, GatewayConfig)
    assert (gateway.drain_s, list(gateway.served_model_name)) == (90.0, ["a", "b"])
    attention = check_service("attention_svc", (*by_name["attention"].flags, "--router=h:1"), {})
    assert isinstance(attention, AttentionConfig)
    assert (attention.grace_s, attention.request_timeout_s) == (20.0, 0.0)
    assert plan.stop_grace_s == 95.0
    assert plan_cluster(ClusterOptions(model=tmp_path), cores=2).stop_grace_s == 10.0


def test_a_secret_is_on_no_command_line_and_in_no_repr(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    passed = {"gateway": {"api_key": ["sk-one-unseen", "sk-two-unseen"]}}
    options = ClusterOptions(model=tmp_path, passed=passed)
    plan = plan_cluster(options, cores=2)
    gateway = plan.services[-1]
    assert gateway.environment == {"EXPERTMESH_API_KEY": "sk-one-unseen,sk-two-unseen"}
    assert "unseen" not in " ".join(gateway.flags)
    assert "unseen" not in repr(plan) + repr(options) + json.dumps(plan.memory_lines)
    assert all(not one.environment for one in plan.services[:-1])
    shown = ready_text("http://127.0.0.1:8000", "m", "/run", needs_key=True)
    assert '-H "Authorization: Bearer $EXPERTMESH_API_KEY"' in shown
    assert 'api_key=os.environ["EXPERTMESH_API_KEY"]' in shown


@given(names=st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=3))
def test_whatever_a_value_looks_like_it_arrives_as_it_is(names: list[str]) -> None:
    """Also one that begins like a flag, or has `=`, commas, spaces or quotes in it."""
    passed = passed_to("gateway", {"gateway": {"served_model_name": names}})
    argv = ("--model=x", "--router=127.0.0.1:1", *passed.arguments)
    assert list(check_service("gateway", argv, {}).served_model_name) == names
