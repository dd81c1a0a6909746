"""An operator's mistakes end the start at once, with one clear line and an exit status."""

import datetime
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from expertmesh.certs import cert_path, create_mesh_certificates, key_path
from expertmesh.cluster.cluster_plan import demo_model_dir
from tests.support.places import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SERVICES = ("gateway", "router", "attention", "expert")
END_S = 30.0
"""Far more than needed: a hang must fail the test, a loaded machine must not."""


def serve(service: str, *flags: str) -> subprocess.CompletedProcess:
    """Run a service that should refuse to start; TimeoutExpired when it serves instead."""
    base = ["--listen", "127.0.0.1:0"]
    if service != "gateway":
        base += ["--ops-listen", "127.0.0.1:0"]
    if service != "router":
        base += ["--model", str(demo_model_dir()), "--router", "127.0.0.1:9"]
    return subprocess.run(
        [sys.executable, "-m", "expertmesh", "serve", service, *base, *flags],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=END_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def tls(folder: Path, role: str) -> list[str]:
    return [
        *("--tls-ca", str(cert_path(folder, "ca"))),
        *("--tls-cert", str(cert_path(folder, role))),
        *("--tls-key", str(key_path(folder, role))),
    ]


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, f"{done.returncode}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last, done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_an_unknown_flag(service: str) -> None:
    assert_refused(serve(service, "--no-such-flag"), "--no-such-flag")


@pytest.mark.parametrize("service", SERVICES)
def test_a_malformed_address(service: str) -> None:
    assert_refused(serve(service, "--listen", "nonsense"), "--listen", "HOST:PORT")


@pytest.mark.parametrize("service", SERVICES)
def test_a_taken_port(service: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert_refused(serve(service, "--listen", f"127.0.0.1:{port}"), str(port))


@pytest.mark.parametrize("service", SERVICES)
def test_an_open_address_without_protection(service: str) -> None:
    assert_refused(serve(service, "--listen", "0.0.0.0:0"), "0.0.0.0", "loopback")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    create_mesh_certificates(folder, days=1)
    return folder


@pytest.mark.parametrize("service", SERVICES)
def test_a_certificate_that_is_none(service: str, certificates: Path, tmp_path: Path) -> None:
    shutil.copytree(certificates, tmp_path / "c")
    cert_path(tmp_path / "c", service).write_text("not a certificate")
    assert_refused(serve(service, *tls(tmp_path / "c", service)), "--tls-cert")


@pytest.mark.parametrize("service", SERVICES)
def test_a_key_that_is_not_there(service: str, certificates: Path, tmp_path: Path) -> None:
    shutil.copytree(certificates, tmp_path / "c")
    key_path(tmp_path / "c", service).unlink()
    assert_refused(serve(service, *tls(tmp_path / "c", service)), "--tls-key")


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(("shift_days", "word"), [(-30, "expired"), (30, "not valid before")])
def test_a_certificate_of_another_time(
    service: str, shift_days: int, word: str, tmp_path: Path
) -> None:
    start = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=shift_days)
    create_mesh_certificates(tmp_path, days=1, start=start)
    assert_refused(serve(service, *tls(tmp_path, service)), word)
