"""Help, exit codes, environment twins and JSON of the command line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from expertmesh.check import Verdict
from expertmesh.cli import app
from expertmesh.cluster.process import readiness_text
from expertmesh.cluster.service_flags import DECIDED
from expertmesh.doctor import check_port, check_round_trip, run_checks
from moe_model.tiny import write_tiny
from tests.support.expertmesh.command import run_command
from tests.support.places import ROOT


def run_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """In a process of its own: what the interpreter itself makes of the exit."""
    return subprocess.run(
        [sys.executable, "-m", "expertmesh", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
    )


@pytest.mark.parametrize("command", ["up", "down", "status", "chat", "doctor", "certs"])
def test_help_shows_exit_codes_and_an_environment_twin_for_every_flag(command: str) -> None:
    shown = " ".join(run_command(command, "--help").stdout.split())
    assert "Exit codes: 0 ok, 1 failed, 2 usage, 3 not running" in shown
    flags = set(re.findall(r"--([a-z][a-z-]+)", shown.partition("Options")[2])) - {"help"}
    twins = set(re.findall(r"env var: EXPERTMESH_([A-Z_]+)", shown))
    twins = {twin.removeprefix(f"{command.upper()}_") for twin in twins}
    options = {flag.upper().replace("-", "_") for flag in flags}
    options = {one for one in options if one.removeprefix("NO_") not in options - {one}}
    assert twins
    assert twins <= options
    mentioned_in_text_only = {"RUN_DIR", "HTTP_PORT", "API_KEY", "TLS_CA"}
    mentioned_in_text_only |= {name.upper() for name in DECIDED}
    assert options - twins <= mentioned_in_text_only


@pytest.mark.parametrize(
    "arguments",
    [
        ("up", "--no-such-flag"),
        ("up", "--pools", "two"),
        ("up", "--model", "/nowhere"),
        ("certs",),
        ("model", "info", "/nowhere"),
    ],
)
def test_usage_errors_are_exit_2_without_a_traceback(arguments: tuple[str, ...]) -> None:
    done = run_command(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_says_and_returns_no_less() -> None:
    done = run_process("up", "--model", "/nowhere")
    told = run_command("up", "--model", "/nowhere")
    assert (done.returncode, done.stdout, done.stderr) == (2, told.stdout, told.stderr)


def test_flags_win_over_their_environment_twins(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = ("--model", str(tmp_path))
    assert "--pools: 1 to 3" in run_command("up", *model, EXPERTMESH_POOLS="9").stderr
    assert "got 8" in run_command("up", *model, "--pools", "8", EXPERTMESH_POOLS="9").stderr


def test_nothing_running_is_exit_3_for_status_and_down(tmp_path: Path) -> None:
    status = run_command("status", "--json", "--run-dir", str(tmp_path))
    assert status.returncode == 3
    assert json.loads(status.stdout)["phase"] == "not running"
    assert run_command("down", "--run-dir", str(tmp_path)).returncode == 3


def test_stale_state_is_told_and_removed_by_down(tmp_path: Path) -> None:
    state = {"pid": 2**22 - 3, "started_at": 1.0, "phase": "ready", "url": "x", "services": []}
    (tmp_path / "cluster.json").write_text(json.dumps(state))
    status = run_command("status", "--run-dir", str(tmp_path))
    assert (status.returncode, status.stdout.split()[0]) == (3, "stale")
    down = run_command("down", "--run-dir", str(tmp_path))
    assert down.returncode == 3
    assert "stale" in down.stderr
    assert not (tmp_path / "cluster.json").exists()


def test_model_info_and_verify_of_a_whole_checkpoint(tmp_path: Path) -> None:
    config = write_tiny(tmp_path, fp8=True)
    info = json.loads(run_command("model", "info", str(tmp_path), "--json").stdout)
    assert info["pieces"] == config.num_layers * config.num_experts
    assert info["stored_format"] == "fp8"
    first = json.loads(run_command("model", "verify", str(tmp_path), "--json").stdout)
    assert first["ok"] is True
    assert re.fullmatch("[0-9a-f]{64}", first["checkpoint_id"])
    text = run_command("model", "verify", str(tmp_path), "--write-manifest")
    assert first["checkpoint_id"] in text.stdout


def test_model_verify_names_what_is_broken(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    shard = next(tmp_path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    done = run_command("model", "verify", str(tmp_path))
    assert done.returncode == 1
    assert shard.name in done.stderr
    assert "Traceback" not in done.stderr


def test_certs_prints_the_exact_flags(tmp_path: Path) -> None:
    made = json.loads(run_command("certs", "--out", str(tmp_path / "c"), "--json").stdout)
    for role, flags in made["flags"].items():
        assert flags[0::2] == ["--tls-ca", "--tls-cert", "--tls-key"]
        assert all(Path(path).is_file() for path in flags[1::2])
        assert role in flags[3]
    assert run_command("certs", "--out", str(tmp_path / "c")).returncode == 1


def test_serve_hands_flags_and_help_to_the_service() -> None:
    script = """if True:
        import sys, types
        service = types.ModuleType("router_svc.__main__")
        service.main = lambda argv: print("router got", argv) or 5
        sys.modules[service.__name__] = service
        sys.argv[0] = "expertmesh"
        from expertmesh.cli import main
        main()"""
    done = subprocess.run(
        [sys.executable, "-c", script, "serve", "router", "--help", "--lease-ms", "9", "-x"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "router got ['--help', '--lease-ms', '9', '-x']"
    assert done.returncode == 5


def test_doctor_reports_every_check_as_json() -> None:
    done = run_command("doctor", "--json", "--http-port", "0")
    report = json.loads(done.stdout)
    assert report["ok"] is (done.returncode == 0)
    assert {check["name"] for check in report["checks"]} >= {
        "python",
        "torch",
        "cpu features",
        "memory",
        "disk",
        "open files",
        "http port",
        "grpc experiments",
        "grpc round trip",
    }


def test_a_check_that_breaks_is_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("expertmesh.doctor.file_limit", lambda: 1 / 0)
    checks = {check.name: check for check in run_checks(0, tmp_path / "not" / "there")}
    assert checks["open files"].verdict is Verdict.FAILED
    assert checks["disk"].verdict is not Verdict.FAILED


def test_round_trip_is_measured_over_a_real_server() -> None:
    assert re.fullmatch(r"\d+ us median on loopback", check_round_trip().found)


def test_a_taken_port_is_a_warning() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert check_port(listener.getsockname()[1]).verdict is Verdict.WARNING


def test_readiness_text_is_one_line_of_text_or_json() -> None:
    import httpx

    assert readiness_text(httpx.Response(503, text="loading 43 %\nmore")) == "loading 43 %"
    assert readiness_text(httpx.Response(503, json={"reason": "no pool"})) == "no pool"
    assert readiness_text(httpx.Response(503, json=[])) == "[]"
    assert readiness_text(httpx.Response(503)) == "not ready"


def test_every_command_shows_how_it_is_called() -> None:
    """In its --help; of `serve` it is the services'."""
    missing = []

    def walk(command, path: str) -> None:
        for name, one in getattr(command, "commands", {}).items():
            walk(one, f"{path} {name}")
        is_leaf = not getattr(command, "commands", None)
        if is_leaf and not path.startswith("expertmesh serve"):
            _, found, examples = (command.help or "").partition("Example")
            if not found or f"  {path}" not in examples:
                missing.append(path)

    walk(typer.main.get_command(app), "expertmesh")
    for service in ("gateway", "router", "attention", "expert"):
        if f"  expertmesh serve {service} --" not in run_command("serve", service, "--help").stdout:
            missing.append(service)
    assert not missing


def test_a_server_may_be_named_without_a_scheme() -> None:
    done = run_command("chat", "hello", "--base-url", "127.0.0.1:9")
    assert done.returncode == 3
    assert done.stderr.startswith("expertmesh: cannot reach http://127.0.0.1:9 (")


def test_what_does_not_fit_is_listed_once(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    done = run_command("up", "--model", str(tmp_path), "--kv-memory", "900TiB", "--http-port", "0")
    assert done.returncode == 1
    assert done.stderr.count("pool-0: ") == 1


@pytest.mark.parametrize("name", ["bf16", "bfloat16"])
def test_a_format_may_go_by_both_of_its_names(name: str, tmp_path: Path) -> None:
    write_tiny(tmp_path / "model")
    planned = run_command(
        "plan",
        "--model",
        str(tmp_path / "model"),
        "--format",
        name,
        "--json",
        "--pools",
        "2",
        "--memory",
        "1GiB",
    )
    assert planned.returncode == 0, planned.stderr
    packed = run_command(
        "model",
        "quantise",
        str(tmp_path / "model"),
        str(tmp_path / "packed"),
        "--format",
        name,
        "--linear-format",
        name,
    )
    assert packed.returncode == 0, packed.stderr
