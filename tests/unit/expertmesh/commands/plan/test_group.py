"""`expertmesh plan`: MiniMax-M2 itself, from its config alone."""

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from expertmesh.cli import app
from moe_model.families.known import parse_config
from rpc.mesh.pieces import Pieces
from tests.support.moe_model.m2_config import M2

LAYERS, EXPERTS = 62, 256


@pytest.fixture
def m2(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "minimax_m2", **M2}))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def held(report: dict, name: str) -> Pieces:
    (host,) = (one for one in report["hosts"] if one["name"] == name)
    return Pieces((int(layer), expert) for layer, ids in host["hold"].items() for expert in ids)


def test_m2_on_two_hosts_is_one_call_per_layer(m2: Path):
    done = run("--model", m2, "--host", "a:256GiB:100GB", "--host", "b:256GiB:100GB", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["piece_bytes"] == 27 * 2**20  # 3 x 3072 x 1536 weights in bfloat16
    assert held(report, "a") | held(report, "b") == Pieces.all_of(LAYERS, EXPERTS)
    assert [host["pieces"] for host in report["hosts"]] == [31 * EXPERTS] * 2
    assert report["calls_per_layer"] == 1
    # Per layer 8 experts of 27 MiB at 100 GB/s, and a round trip of 0.25 to 1 ms.
    per_layer_s = 8 * 27 * 2**20 / 100e9
    assert report["tokens_per_s_high"] == pytest.approx(1 / (62 * (per_layer_s + 0.25e-3)), 0.01)
    assert report["tokens_per_s_low"] == pytest.approx(1 / (62 * (per_layer_s + 1e-3)), 0.01)
    assert report["wire_bytes_per_token"] == 62 * (2 * 3072 + 4 * 3072 + 8 * 8 + 4)


def test_expert_striping_touches_as_many_pools_as_chance_says(m2: Path):
    flags = ("--pools", 4, "--memory", "150GiB", "--striping", "expert", "--json")
    report = json.loads(run("--model", m2, *flags).stdout)
    # 4 x (1 - C(192, 8) / C(256, 8)): of 8 of 256 experts none lies in a quarter rarely.
    assert report["calls_per_layer"] == pytest.approx(4 * (1 - 0.0955), abs=0.01)


def test_what_does_not_fit_is_said_with_what_would(m2: Path):
    done = run("--model", m2, "--pools", 2, "--memory", "128GiB", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["dark_pieces"] == report["short_pieces"] > 0
    assert all(host["held_bytes"] < 128 * 2**30 for host in report["hosts"])
    problems = " ".join(report["problems"])
    assert "none: the hosts have room for" in problems
    assert "in fp8 it would fit" in problems


def test_replicas_lie_on_different_hosts(m2: Path):
    flags = ("--pools", 3, "--memory", "300GiB", "--replicas", 2, "--json")
    report = json.loads(run("--model", m2, *flags).stdout)
    names = [host["name"] for host in report["hosts"]]
    assert sum(host["pieces"] for host in report["hosts"]) == 2 * LAYERS * EXPERTS
    for name in names:
        others = Pieces.union(held(report, other) for other in names if other != name)
        assert held(report, name) <= others


def test_the_table_names_hosts_and_layers(m2: Path):
    done = run("--model", m2, "--pools", 2, "--memory", "256GiB", "--format", "fp8")
    assert done.exit_code == 0
    assert "pool-1" in done.stdout


@pytest.mark.parametrize(
    "flags, named",
    [
        ((), "--host"),
        (("--host", "a"), "NAME:MEMORY"),
        (("--host", "a:1GiB", "--host", "a:2GiB"), "names must differ"),
        (("--host", "a:many"), "--host a: memory"),
        (("--pools", "2"), "--memory"),
        (("--host", "a:1GiB", "--format", "fp6"), "--format"),
        (("--host", "a:1GiB", "--striping", "none"), "--striping"),
        (("--host", "a:1GiB", "--round-trip-ms", "soon"), "--round-trip-ms"),
        (("--host", "a:1GiB", "--model", "/nowhere"), "--model"),
    ],
)
def test_a_bad_flag_is_named(flags: tuple[str, ...], named: str):
    done = run(*flags)
    assert named in str(done.exception)
    assert done.exception.exit_code == 2


def test_a_plot_is_written_or_its_extra_is_named(m2: Path, tmp_path: Path):
    png = tmp_path / "plan.png"
    done = run("--model", m2, "--pools", 2, "--memory", "256GiB", "--plot", png)
    if importlib.util.find_spec("matplotlib") is None:
        assert "expertmesh[plot]" in str(done.exception)
    else:
        assert png.read_bytes().startswith(b"\x89PNG")


def test_the_config_is_the_one_that_is_served():
    assert parse_config({"model_type": "minimax_m2", **M2}).num_pieces == LAYERS * EXPERTS
