"""The sandbox made of namespaces, by the program bwrap."""

import os
import re
import shutil
import subprocess
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from expertmesh.agent.sandbox.folders.containment import folder_within, is_within
from expertmesh.agent.sandbox.folders.identity import Identity, as_user
from expertmesh.agent.sandbox.folders.placeholders import make_missing, remove_empty
from expertmesh.agent.sandbox.folders.places import Places, environment
from expertmesh.agent.sandbox.folders.repositories import disarm
from expertmesh.agent.sandbox.folders.scratch import SCRATCH_BYTES, scratch_folder
from expertmesh.agent.sandbox.kernel.rlimits import counts_by_namespace, rlimits
from expertmesh.agent.sandbox.kernel.seccomp import program
from expertmesh.agent.sandbox.kernel.syscalls import EVERYWHERE, WITH_OWN_NETWORK
from expertmesh.agent.sandbox.kernel.tasks import tasks_of
from expertmesh.agent.sandbox.policy import DEFAULT_LIMITS, Limits, Outcome, SandboxUnavailableError
from expertmesh.agent.sandbox.process.running import check_argv, run_prepared
from expertmesh.agent.sandbox.process.started import Prepared, file_with

HOME = "/tmp"
PROGRAMS = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin"
"""Of the system, whatever PATH says: some of them run inside, where nothing else is."""
SHARED_MEMORY_BYTES = 64 << 20
ALONE = (
    *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
    *("--hostname", "sandbox", "--proc", "/proc", "--dev", "/dev"),
)


IF_THE_AGENT_LIVES = '{flock} -n 2 || exec "$@"'
"""bwrap ends with its parent, but not if that ended before bwrap had asked for it. The agent holds
a lock on standard error (`Started`); whoever gets it is alone."""


class BubblewrapSandbox:
    """Own mounts, processes, network, users; of the system only what programs need."""

    def __init__(self, places: Places, identity: Identity | None):
        """Raises SandboxUnavailableError if a program is missing, or bwrap answers nonsense."""
        self._bwrap = _program("bwrap", "bubblewrap", places)
        self._prlimit = _program("prlimit", "util-linux", places)
        self._flock = _program("flock", "util-linux", places)
        self._sh = _program("sh", "dash", places)
        self.mechanism = _answer(self._bwrap, "--version")
        if not re.fullmatch(r"bubblewrap [\d.]+", self.mechanism):
            raise SandboxUnavailableError(f"{self._bwrap} is not bubblewrap")
        self._sizes_tmpfs = "--size" in _answer(self._bwrap, "--help")  # since 0.7
        self._places, self._identity = places, identity
        self._made: list[Path] = []
        weakref.finalize(self, remove_empty, self._made)

    async def run(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = DEFAULT_LIMITS,
        folder: str = ".",
        stdin: bytes = b"",
        on_output: Callable[[str], None] | None = None,
    ) -> Outcome:
        check_argv(argv)
        start_in = folder_within(self._places.work, folder)
        with ExitStack() as stack:
            scratch = None
            if not self._sizes_tmpfs:
                scratch = stack.enter_context(scratch_folder(self._identity))
            prepared = self._prepare(argv, limits, start_in, scratch)
            try:
                return await run_prepared(prepared, limits, stdin, on_output)
            finally:
                disarm(self._places.work)

    def _prepare(
        self, argv: Sequence[str], limits: Limits, start_in: Path, scratch: Path | None
    ) -> Prepared:
        uid, gid = self._ids()
        made_up = {
            "/etc/passwd": f"sandbox:x:{uid}:{gid}::{HOME}:/bin/sh\n",
            "/etc/group": f"sandbox:x:{gid}:\n",
            "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        }
        others = 0 if counts_by_namespace() else tasks_of(uid)
        filter_file = file_with(program((*EVERYWHERE, *WITH_OWN_NETWORK)))
        status_file, files = file_with(), [filter_file]
        inner = rlimits(limits, others)
        # Inside, the filter already refuses to set this one; the others count by namespace.
        line = [self._prlimit, f"--core={inner.pop('core')}", self._bwrap, *ALONE]
        line += [*self._memory_folders(scratch), *self._mounts()]
        for path, text in made_up.items():
            files.append(file_with(text.encode()))
            line += ["--ro-bind-data", str(files[-1]), path]
        line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(start_in)]
        line += ["--seccomp", str(filter_file), "--json-status-fd", str(status_file)]
        line += ["--", self._sh, "-c", IF_THE_AGENT_LIVES.format(flock=self._flock), "sh"]
        line += [self._prlimit, *(f"--{name}={value}" for name, value in inner.items())]
        growing = [(self._places.work, limits.growth_bytes)] if self._places.is_writable else []
        return Prepared(
            argv=as_user(self._identity, [*line, "--", *argv]),
            environment=environment(self._places, HOME),  # bwrap's own can be read inside
            files=files,
            status_file=status_file,
            growing=[*growing, *([(scratch, SCRATCH_BYTES)] if scratch else [])],
            helpers=1,
        )

    def _ids(self) -> tuple[int, int]:
        if self._identity is not None:
            return self._identity.uid, self._identity.gid
        return os.getuid(), os.getgid()

    def _memory_folders(self, scratch: Path | None) -> list[str]:
        if scratch is not None:
            return ["--bind", str(scratch), HOME]
        return [
            *("--size", str(SCRATCH_BYTES), "--tmpfs", HOME),
            *("--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm"),
        ]

    def _mounts(self) -> list[str]:
        """Outer folders before those inside them."""
        places, work = self._places, self._places.work
        mounts: dict[Path, list[str]] = {}
        for path in places.readable:
            if path.is_symlink() and path.parent == Path("/"):
                mounts[path] = ["--symlink", os.readlink(path), str(path)]
            else:
                mounts[path] = ["--ro-bind", str(path), str(path)]
        mounts[work] = ["--bind" if places.is_writable else "--ro-bind", str(work), str(work)]
        if places.is_writable:
            present, made = make_missing(work, places.protected, self._identity)
            self._made += made
            for path in present:
                mounts[path] = ["--ro-bind", str(path), str(path)]
                for parent in path.parents:
                    if parent != work and is_within(parent, work):
                        # What is mounted cannot be moved away, with what is protected in it.
                        mounts.setdefault(parent, ["--bind", str(parent), str(parent)])
        for path in places.hidden:
            mounts[path] = ["--ro-bind", "/dev/null", str(path)]
        return [
            part for path in sorted(mounts, key=lambda one: len(one.parts)) for part in mounts[path]
        ]


def _program(name: str, package: str, places: Places) -> str:
    """Where it is, outside of what commands can write."""
    found = shutil.which(name, path=PROGRAMS)
    if found is None:
        raise SandboxUnavailableError(f"{name} is not installed (package {package})")
    if is_within(Path(found).resolve(), places.work):
        raise SandboxUnavailableError(f"{found} lies in the work folder, where anybody may swap it")
    return found


def _answer(program: str, flag: str) -> str:
    try:
        done = subprocess.run([program, flag], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxUnavailableError(f"{program} {flag}: {error}") from None
    return done.stdout.strip()
