"""The commands of docs/several-machines.md, on four hosts made of network namespaces.

The commands are read from the page itself; only paths and layer numbers are replaced, so
that the page cannot drift from what works.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from expertmesh.certs import (
    add_ca,
    cert_path,
    create_mesh_certificates,
    drop_ca,
    key_path,
    renew,
)
from tests.support.moe_model.demo_like import write_demo_like_checkpoint
from tests.support.places import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PAGE = ROOT / "docs" / "several-machines.md"
START_S = 90.0
KEY = "the-key-of-this-test"
MEMBERS = ("attention/a1", "expert/east", "expert/west")
ATTENTION = "attention-a1"
GATEWAY = "http://10.77.0.1:8000"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


class Network:
    """Four hosts with one address each, on a bridge in a namespace of its own."""

    def __init__(self) -> None:
        self._prefix = f"em{os.getpid()}"
        self._hub = f"{self._prefix}-hub"
        self._spaces: list[str] = []

    def create(self) -> None:
        self._add_space(self._hub)
        ip("-n", self._hub, "link", "add", "br0", "type", "bridge")
        ip("-n", self._hub, "link", "set", "br0", "up")
        for number in range(1, 5):
            space, port = self.space(f"10.77.0.{number}"), f"port{number}"
            self._add_space(space)
            ip("-n", self._hub, "link", "add", port, "type", "veth", "peer", "eth0", "netns", space)
            ip("-n", self._hub, "link", "set", port, "master", "br0", "up")
            ip("-n", space, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")

    def space(self, address: str) -> str:
        return f"{self._prefix}-{address.rpartition('.')[2]}"

    def _add_space(self, name: str) -> None:
        ip("netns", "add", name)
        self._spaces.append(name)
        ip("-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        for name in self._spaces:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command")
    network = Network()
    try:
        network.create()
    except subprocess.CalledProcessError as error:
        network.remove()
        pytest.skip(f"this machine does not give us network namespaces: {error.stderr.strip()}")
    yield network
    network.remove()


class Mesh:
    """The processes of the page, each in its host's namespace."""

    def __init__(self, network: Network, folder: Path):
        self.network = network
        self.folder = folder
        self.certs = folder / "certs"
        self.model = folder / "model"
        self.processes: dict[str, subprocess.Popen] = {}

    def localise(self, command: str) -> list[str]:
        """The page's command with this test's files; `expertmesh` is this source tree's."""
        for theirs, ours in (
            ("/etc/expertmesh", str(self.certs)),
            ("/models/minimax-m2", str(self.model)),
            ("/var/lib/expertmesh", str(self.folder)),
            ("--layers 0-30", "--layers 0-1"),
            ("--layers 31-61", "--layers 2-3"),
            ("--kv-memory 4GiB", "--kv-memory 32MiB --dtype float32 --threads 1"),
        ):
            command = command.replace(theirs, ours)
        words = shlex.split(command.replace("\\\n", " "))
        assert words[0] == "expertmesh"
        return [sys.executable, "-m", *words]

    def start(self, name: str, host: str, command: str) -> subprocess.Popen:
        with open(self.log_path(name), "wb") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.network.space(host), *self.localise(command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )
        self.processes[name] = process
        return process

    def run(self, host: str, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["ip", "netns", "exec", self.network.space(host), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def logs(self) -> str:
        return "\n".join(
            f"--- {name}\n{self.log_path(name).read_text()[-1500:]}" for name in self.processes
        )

    def await_ready(self) -> None:
        """Until the gateway's /readyz, asked from another host, says 200."""
        probe = (
            "import sys, httpx\n"
            f"sys.exit(httpx.get('{GATEWAY}/readyz', timeout=2).status_code != 200)"
        )
        deadline = time.monotonic() + START_S
        while self.run("10.77.0.2", sys.executable, "-c", probe).returncode != 0:
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended\n{self.logs()}"
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.5)

    def stop(self) -> dict[str, int]:
        """SIGTERM in reverse order; exit statuses by name."""
        statuses = {}
        for name, process in reversed(self.processes.items()):
            if process.poll() is None:
                process.terminate()
            try:
                statuses[name] = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                statuses[name] = process.wait()
        return statuses


def page_commands() -> list[tuple[str, str]]:
    """(host, command) of every `expertmesh serve` on the page."""
    text = PAGE.read_text()
    hosts = re.findall(
        r"### Host (10\.77\.0\.\d):.*?```sh\n(expertmesh serve .*?)```", text, re.DOTALL
    )
    return [(host, command) for host, block in hosts for command in block.strip().split("\n\n")]


@pytest.fixture(scope="module")
def mesh(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    mesh = Mesh(network, tmp_path_factory.mktemp("mesh"))
    create_mesh_certificates(mesh.certs, days=1, members=MEMBERS)
    (mesh.certs / "api-keys").write_text(f"# of this test\n{KEY}\n")
    write_demo_like_checkpoint(mesh.model)
    for host, command in page_commands():
        service = command.split()[2]
        mesh.start(f"{service}-{host}", host, command)
    try:
        mesh.await_ready()
        yield mesh
    finally:
        for process in mesh.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def test_the_page_has_the_five_commands() -> None:
    assert [(host, command.split()[2]) for host, command in page_commands()] == [
        ("10.77.0.1", "router"),
        ("10.77.0.1", "gateway"),
        ("10.77.0.2", "attention"),
        ("10.77.0.3", "expert"),
        ("10.77.0.4", "expert"),
    ]


def ask(mesh: Mesh, host: str, key: str) -> subprocess.CompletedProcess:
    command = ["--base-url", GATEWAY, "--api-key", key, "--max-tokens", "8", "--json", "hello"]
    return mesh.run(host, sys.executable, "-m", "expertmesh", "chat", *command)


def test_a_question_from_any_host_crosses_all_of_them(mesh: Mesh) -> None:
    for host in ("10.77.0.1", "10.77.0.4"):
        done = ask(mesh, host, KEY)
        assert done.returncode == 0, done.stderr + mesh.logs()
        # Random weights may draw a stop token before the eighth.
        assert 1 <= json.loads(done.stdout)["completion_tokens"] <= 8


def test_a_client_without_the_key_is_refused(mesh: Mesh) -> None:
    done = ask(mesh, "10.77.0.3", "not-the-key-at-all")
    assert done.returncode == 1
    assert "401" in done.stderr


def test_a_pool_with_another_roles_certificate_cannot_join(mesh: Mesh) -> None:
    command = next(command for host, command in page_commands() if host == "10.77.0.3")
    command = command.replace("expert-east", "gateway")
    command = command.replace("east", "stranger").replace("50052", "50099")
    command += " --ops-listen 127.0.0.1:0"
    stranger = mesh.start("stranger", "10.77.0.3", command)
    try:
        deadline = time.monotonic() + 30
        log = mesh.log_path("stranger")
        while stranger.poll() is None and "PERMISSION_DENIED" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        assert "may not call this" in log.read_text()
    finally:
        stranger.kill()
        stranger.wait()
        del mesh.processes["stranger"]


def test_a_pool_with_another_pools_certificate_cannot_join_in_its_name(mesh: Mesh) -> None:
    command = next(command for host, command in page_commands() if host == "10.77.0.3")
    command = command.replace("--pool-id east", "--pool-id west").replace("50052", "50099")
    thief = mesh.start("thief", "10.77.0.3", command + " --ops-listen 127.0.0.1:0")
    try:
        assert thief.wait(60) == 1
        assert "is for east, not for 'west'" in mesh.log_path("thief").read_text()
    finally:
        if thief.poll() is None:
            thief.kill()
            thief.wait()
        del mesh.processes["thief"]
    assert ask(mesh, "10.77.0.1", KEY).returncode == 0


def test_certificates_are_renewed_and_the_ca_changed_while_requests_run(mesh: Mesh) -> None:
    serving = [name for name, process in mesh.processes.items() if process.poll() is None]
    steps = (
        lambda: add_ca(mesh.certs),
        lambda: renew(mesh.certs, days=1),
        lambda: drop_ca(mesh.certs),
    )
    for step in steps:
        step()
        for process in mesh.processes.values():
            process.send_signal(signal.SIGHUP)
        done = ask(mesh, "10.77.0.1", KEY)
        assert done.returncode == 0, done.stderr + mesh.logs()
    # Attention reaches a pool that starts now: every handshake has the new certificates.
    name = next(name for name in serving if name.endswith("10.77.0.4"))
    mesh.processes[name].terminate()
    assert mesh.processes[name].wait(60) == 0
    command = next(command for host, command in page_commands() if host == "10.77.0.4")
    mesh.start(name, "10.77.0.4", command)
    mesh.await_ready()
    done = ask(mesh, "10.77.0.1", KEY)
    assert done.returncode == 0, done.stderr + mesh.logs()
    assert [name for name, process in mesh.processes.items() if process.poll() is None] == serving


def test_plaintext_and_foreign_certificates_do_not_get_in(mesh: Mesh, tmp_path: Path) -> None:
    create_mesh_certificates(tmp_path, days=1, members=MEMBERS)
    call = (
        "import sys\nfrom pathlib import Path\nfrom rpc.channel import open_sync_channel\n"
        "from rpc.access.tls import TlsFiles\n"
        "from grpc_health.v1 import health_pb2 as pb, health_pb2_grpc\n"
        "paths = [Path(p) for p in sys.argv[1:]]\n"
        "tls = TlsFiles(ca=paths[0], cert=paths[1], key=paths[2]) if paths else None\n"
        "channel = open_sync_channel('10.77.0.3:50052', tls=tls, server_role='expert')\n"
        "health_pb2_grpc.HealthStub(channel).Check(pb.HealthCheckRequest(), timeout=5)\n"
    )

    def check(folder: Path | None) -> subprocess.CompletedProcess:
        files = (
            (cert_path(folder, "ca"), cert_path(folder, ATTENTION), key_path(folder, ATTENTION))
            if folder
            else ()
        )
        return mesh.run("10.77.0.2", sys.executable, "-c", call, *map(str, files))

    assert check(mesh.certs).returncode == 0
    for stranger in (check(None), check(tmp_path)):
        assert stranger.returncode != 0
        assert "UNAVAILABLE" in stranger.stderr


def test_every_service_stops_with_status_0(mesh: Mesh) -> None:
    """Last in this file: it ends the mesh."""
    statuses = mesh.stop()
    assert set(statuses.values()) == {0}, f"{statuses}\n{mesh.logs()}"
