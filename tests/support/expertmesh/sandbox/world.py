"""What a hostile program might reach outside its sandbox, and whether it has."""

import ctypes
import os
import secrets
import shutil
import socket
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.expertmesh.sandbox.users import User

DECOY = """
import pathlib, signal, sys, time
signal.signal(signal.SIGURG, lambda *_: pathlib.Path(sys.argv[1]).write_text("got a signal"))
print("ready", flush=True)
time.sleep(600)
"""


@dataclass
class World:
    """Files, sockets and a process of the user as whom commands run, but outside."""

    known: dict[str, Any]
    """What the program is told."""
    outside: Path
    work: Path
    decoy: subprocess.Popen[str]
    tcp: socket.socket
    udp: socket.socket
    others: list[socket.socket]
    before: dict[str, Any]

    def changes(self) -> list[str]:
        """What is not as it was; empty if the sandbox has held."""
        now = self._state()
        found = [
            f"{name}: {self.before.get(name)} -> {now.get(name)}"
            for name in sorted({*self.before, *now})
            if self.before.get(name) != now.get(name)
        ]
        for name, each in (("TCP", self.tcp), ("UDP", self.udp)):
            try:
                each.accept() if name == "TCP" else each.recv(100)
            except BlockingIOError:
                continue
            found.append(f"something came by {name}")
        return found

    def _state(self) -> dict[str, Any]:
        is_running = self.decoy.poll() is None
        process = psutil.Process(self.decoy.pid) if is_running else None
        limits = Path(f"/proc/{self.decoy.pid}/limits")
        return {
            **tree(self.outside),
            **tree(self.work / ".git"),
            **tree(self.work / "deep"),
            "missing": (self.work / "missing").exists(),
            "decoy runs": is_running,
            "decoy": process and (process.nice(), process.cpu_affinity(), limits.read_text()),
        }

    def close(self) -> None:
        self.decoy.kill()
        self.decoy.wait()
        for each in (self.tcp, self.udp, *self.others):
            each.close()
        Path(self.known["shared_memory"]).unlink(missing_ok=True)
        libc = ctypes.CDLL(None)
        for key in (self.known["shm_key"], self.known["new_shm_key"]):
            libc.shmctl(libc.shmget(key, 0, 0), 0, None)  # if it is there


def tree(folder: Path) -> dict[str, Any]:
    """Path -> everything about it that could be changed, but not when it was read."""
    found: dict[str, Any] = {}
    if not folder.exists():
        return found
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        facts = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns)
        found[str(path)] = (*facts, content, os.listxattr(path, follow_symlinks=False))
    return found


def make_world(folder: Path, user: User) -> World:
    """`folder` is empty and open to the user."""
    token = f"token-{secrets.token_hex(8)}"
    outside, work = folder / "outside", folder / "work"
    for place in (outside, work, work / ".git" / "hooks", work / "deep" / "er"):
        place.mkdir(parents=True)
    for file in (
        outside / "secret", outside / "victim", outside / "movable", work / ".git" / "config",
        work / ".git" / "hooks" / "sample", work / "deep" / "er" / "state",
    ):  # fmt: skip
        file.write_text(token)
    (work / "link-out").symlink_to(outside)
    user.own(folder)
    set_uid = work / "id"
    shutil.copy("/usr/bin/id", set_uid)
    set_uid.chmod(0o4755)  # root's, if this is root
    got = outside / "signal"
    decoy = user.start(
        ["-c", DECOY, str(got), token], folder, {"SECRET": token}, stdout=subprocess.PIPE
    )
    assert decoy.stdout is not None
    assert decoy.stdout.readline() == "ready\n"
    tcp, udp, named, abstract = (
        socket.socket(),
        socket.socket(type=socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
    )
    for each in (tcp, udp):
        each.bind(("127.0.0.1", 0))
    # Names of sockets are short, and the folder's may be long.
    here = os.open(outside, os.O_PATH)
    named.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)
    (outside / "socket").chmod(0o777)
    abstract.bind(f"\0{token}")
    for each in (tcp, named, abstract):
        each.listen()
    for each in (tcp, udp, named, abstract):
        each.setblocking(False)
    shared = Path(f"/dev/shm/expertmesh-{token}")
    shared.write_text(token)
    shared.chmod(0o666)
    key = secrets.randbits(30)
    ctypes.CDLL(None).shmget(key, 4096, 0o1666)
    known = {
        "token": token,
        "secret": str(outside / "secret"),
        "outside": str(outside),
        "work": str(work),
        "decoy": decoy.pid,
        "tcp_port": tcp.getsockname()[1],
        "udp_port": udp.getsockname()[1],
        "unix_socket": str(outside / "socket"),
        "abstract_socket": token,
        "shared_memory": str(shared),
        "shm_key": key,
        "new_shm_key": secrets.randbits(30),
        "set_uid_program": str(set_uid),
    }
    world = World(known, outside, work, decoy, tcp, udp, [named, abstract], before={})
    world.before = world._state()
    return world
