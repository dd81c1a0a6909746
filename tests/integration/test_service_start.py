"""How expert_svc and attention_svc start and stop, as an operator meets them."""

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attention_svc.__main__ import main as attention_main
from expert_svc.__main__ import main as expert_main
from moe_model.tiny import write_tiny
from tests.support.mesh import PORTS, ServiceProcess
from tests.support.mesh_certificates import DAY, Authority

MAINS = {"expert_svc": expert_main, "attention_svc": attention_main}
SERVICES = tuple(MAINS)
WAIT_S = 30.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    write_tiny(folder, num_hidden_layers=1)
    return folder


pytestmark = pytest.mark.timeout(60)


@pytest.mark.slow
@pytest.mark.parametrize("service", ["attention", "expert"])
@pytest.mark.parametrize("command", [["-m", "{module}"], ["-m", "expertmesh", "serve", "{name}"]])
def test_too_little_memory_for_the_libraries_is_one_line(service: str, command: list[str]) -> None:
    names = {"name": service, "module": f"{service}_svc"}
    done = subprocess.run(
        [
            *("sh", "-c", 'ulimit -v 307200 && exec "$@"', "sh", sys.executable),
            *(part.format(**names) for part in command),
            "--help",
        ],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"expertmesh serve {service}: cannot load its libraries: ")
    assert "memory" in line


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """A service run in this process must not leave its handlers behind."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def flags_of(service: str, model: Path, **changes: str) -> list[str]:
    flags = {"--listen": "127.0.0.1:0", "--ops-listen": "127.0.0.1:0", "--model": str(model)}
    if service == "attention_svc":
        flags["--transport"] = "in_process"
    flags.update({f"--{name.replace('_', '-')}": value for name, value in changes.items()})
    return [part for pair in flags.items() for part in pair]


def refusal(service: str, flags: list[str], capsys, caplog) -> str:
    """Runs `main` in this process; the one line it says before exit status 2."""
    capsys.readouterr()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        try:
            status = MAINS[service](flags)
        except SystemExit as exit:
            status = exit.code
    assert status == 2
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    said = capsys.readouterr().err.strip().splitlines()
    lines = errors or said[-1:]  # argparse prints the usage, then the line
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "Traceback" not in "\n".join(said)
    return lines[0]


BAD_FLAGS = {
    "listen": "nowhere",
    "ops_listen": "127.0.0.1:99999",
    "advertise": "x",
    "router": ":1",
    "threads": "-1",
    "dtype": "int3",
    "load": "random",
    "log_level": "loud",
    "grace_s": "-1",
    "no_such_flag": "1",
}
OWN_BAD_FLAGS = {
    "expert_svc": {"memory": "lots", "layers": "7", "experts": "a-b"},
    "attention_svc": {
        "kv_memory": "1",
        "max_model_len": "513",
        "max_running": "0",
        "transport": "pigeon",
        "expert_timeout_s": "nan",
        "request_timeout_s": "-1",
        "device": "abacus",
        "max_batch_tokens": "many",
    },
}


@pytest.mark.parametrize("service", SERVICES)
def test_a_bad_flag_is_exit_2_with_one_line_that_names_it(service, model, capsys, caplog):
    for name, value in {**BAD_FLAGS, **OWN_BAD_FLAGS[service]}.items():
        line = refusal(service, flags_of(service, model, **{name: value}), capsys, caplog)
        assert "--" + name.replace("_", "-") in line


@pytest.mark.parametrize("service", SERVICES)
def test_a_bad_model_folder_is_exit_2_with_one_line_that_names_it(
    service, model, tmp_path, capsys, caplog
):
    empty, cut = tmp_path / "empty", tmp_path / "cut"
    empty.mkdir()
    write_tiny(cut, num_hidden_layers=1)
    (shard,) = cut.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-5])
    for folder, words in (
        (tmp_path / "none", "not a folder"),
        (empty, "config.json"),
        (cut, shard.name),
    ):
        line = refusal(service, flags_of(service, folder), capsys, caplog)
        assert str(folder) in line
        assert words in line


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("flag", ["listen", "ops_listen"])
def test_a_taken_port_is_exit_2_with_one_line(service, flag, model, capsys, caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refusal(service, flags_of(service, model, **{flag: address}), capsys, caplog)
    assert f"--{flag.replace('_', '-')} {address}" in line
    assert (
        flag == "listen" or "port 0" in line
    )  # its default is what a host's second pool trips over


@pytest.mark.parametrize("service", SERVICES)
def test_a_bad_certificate_is_exit_2_with_one_line_that_names_the_flag(
    service, model, tmp_path, capsys, caplog
):
    mesh = Authority(tmp_path)
    good, old = mesh.issue("expert"), mesh.issue("expert", start=-2 * DAY, end=-DAY)
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    files = {"tls_ca": good.ca, "tls_cert": good.cert, "tls_key": good.key}
    bad: tuple[tuple[str, dict], ...] = (
        ("--tls-cert", {"tls_cert": tmp_path / "missing.pem"}),
        ("--tls-cert", {"tls_cert": junk}),
        ("--tls-cert", {"tls_cert": old.cert, "tls_key": old.key}),
        ("--tls-ca", {"tls_ca": junk}),
        ("--tls-key", {"tls_key": junk}),
        ("--tls-key", {"tls_key": old.key}),  # of another certificate
    )
    for name, changes in bad:
        texts = {key: str(path) for key, path in {**files, **changes}.items()}
        line = refusal(service, flags_of(service, model, **texts), capsys, caplog)
        assert name in line
    line = refusal(service, flags_of(service, model, tls_ca=str(good.ca)), capsys, caplog)
    assert "go together" in line


@pytest.mark.parametrize("service", SERVICES)
def test_plaintext_beyond_loopback_needs_a_word(service, model, capsys, caplog):
    line = refusal(service, flags_of(service, model, listen="0.0.0.0:0"), capsys, caplog)
    assert "--insecure" in line


def test_remote_experts_need_a_router(model, capsys, caplog):
    line = refusal(
        "attention_svc", flags_of("attention_svc", model, transport="grpc"), capsys, caplog
    )
    assert "--router" in line


def started(service: str, *flags: str) -> ServiceProcess:
    return ServiceProcess(service, [*flags, "--threads", "1"])


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_serving_ends_it_with_0(service, number, model):
    process = started(service, *flags_of(service, model))
    process.wait_for(r" ready")
    process.process.send_signal(number)
    assert process.process.wait(WAIT_S) == 0
    assert not any("Traceback" in line for line in process.lines)


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_loading_ends_it_with_0(service, number, tmp_path):
    large = tmp_path / "large"  # some hundred megabytes: hashing and loading take a while
    write_tiny(large, hidden_size=1024, intermediate_size=512, num_local_experts=32)
    process = started(service, *flags_of(service, large))
    process.wait_for("hashing the checkpoint")
    process.process.send_signal(number)
    assert process.process.wait(WAIT_S) == 0
    assert not any(line.endswith(" ready") for line in process.lines)
    assert not any("Traceback" in line for line in process.lines)


@pytest.mark.slow
def test_two_interrupts_in_a_row_end_it_at_once(model):
    """Even without a moment between them."""
    process = started("expert_svc", *flags_of("expert_svc", model, grace_s="60"))
    process.wait_for(r" ready")
    for _ in range(2):
        process.process.send_signal(signal.SIGINT)
    assert process.process.wait(WAIT_S) == 0
    assert not any("Traceback" in line or "Exception" in line for line in process.lines)


@pytest.mark.slow
def test_a_pool_loads_alone_when_there_is_no_router(model):
    process = ServiceProcess("expert_svc", ["--model", str(model), *PORTS, "--experts", "0-3"])
    try:
        process.wait_for("ready: 4 pieces")
        assert process.process.poll() is None
    finally:
        process.stop()


@pytest.mark.slow
def test_services_end_promptly_when_the_router_is_not_there(model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        router = f"127.0.0.1:{free.getsockname()[1]}"
    process = started("expert_svc", *flags_of("expert_svc", model, router=router))
    process.wait_listening()
    before = time.monotonic()
    process.process.send_signal(signal.SIGTERM)
    try:
        assert process.process.wait(WAIT_S) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert time.monotonic() - before < WAIT_S
