"""What does a command say when TLS is expected, or not expected, or nothing listens?"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from expertmesh.certs import cert_path, create_mesh_certificates, key_path
from expertmesh.cli import app
from expertmesh.clients.reach import reach_report
from rpc.access.tls import TlsFiles, server_credentials


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    create_mesh_certificates(folder, days=1)
    return folder


def files(folder: Path, role: str) -> TlsFiles:
    return TlsFiles(
        ca=cert_path(folder, "ca"), cert=cert_path(folder, role), key=key_path(folder, role)
    )


@pytest.fixture(params=[True, False], ids=["tls", "plaintext"])
def server(request: pytest.FixtureRequest, certificates: Path) -> Iterator[tuple[str, bool]]:
    """(address, whether it wants TLS)."""
    running = grpc.server(ThreadPoolExecutor(1))
    if request.param:
        credentials = server_credentials(files(certificates, "router"))
        port = running.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield f"127.0.0.1:{port}", request.param
    running.stop(0)


@pytest.mark.parametrize("command", [("status",), ("pool", "list"), ("experts", "show")])
def test_the_other_kind_of_server_is_not_called_absent(
    command: tuple[str, ...], server: tuple[str, bool], certificates: Path
) -> None:
    address, wants_tls = server
    mine = files(certificates, "cli")
    flags = ("--tls-ca", str(mine.ca), "--tls-cert", str(mine.cert), "--tls-key", str(mine.key))
    done = CliRunner().invoke(app, [*command, "--router", address, *(() if wants_tls else flags)])
    told = str(done.exception)
    assert told.startswith(f"no router answers at {address}")
    assert "something listens there" in told
    assert ("give --tls-ca, --tls-cert and --tls-key" in told) is wants_tls
    assert done.exception.exit_code == 3


def test_of_attention_services_the_same_is_said(certificates: Path) -> None:
    running = grpc.server(ThreadPoolExecutor(1))
    credentials = server_credentials(files(certificates, "attention"))
    port = running.add_secure_port("127.0.0.1:0", credentials)
    running.start()
    (row,) = reach_report([f"127.0.0.1:{port}"])
    running.stop(0)
    assert "something listens there: if the mesh has certificates" in row["error"]


def test_where_nobody_listens_that_is_said() -> None:
    done = CliRunner().invoke(app, ["pool", "list", "--router", "127.0.0.1:9"])
    assert str(done.exception) == "no router answers at 127.0.0.1:9 (Connection refused)"
