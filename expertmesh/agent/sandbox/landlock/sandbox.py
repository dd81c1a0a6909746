"""The sandbox for where namespaces are not to be had: Landlock, seccomp and a supervisor.

Not as comfortable as bubblewrap's: no network at all, no /proc, no /dev/shm, and /tmp elsewhere
(TMPDIR). What a command asks about files by name (whether one exists, how large it is) is answered
everywhere; no content is.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from expertmesh.agent.sandbox.folders.containment import folder_within, is_within
from expertmesh.agent.sandbox.folders.identity import Identity
from expertmesh.agent.sandbox.folders.places import Places, environment
from expertmesh.agent.sandbox.folders.repositories import disarm
from expertmesh.agent.sandbox.folders.scratch import SCRATCH_BYTES, scratch_folder
from expertmesh.agent.sandbox.kernel.rlimits import rlimits
from expertmesh.agent.sandbox.landlock.domain import MIN_VERSION, version
from expertmesh.agent.sandbox.landlock.launcher import Orders
from expertmesh.agent.sandbox.policy import DEFAULT_LIMITS, Limits, Outcome, SandboxUnavailableError
from expertmesh.agent.sandbox.process.running import check_argv, run_prepared
from expertmesh.agent.sandbox.process.started import Prepared, file_with

OF_THE_KERNEL = ("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu")
BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from expertmesh.agent.sandbox.landlock.launcher import main; main(int(sys.argv[2]))"
)


class LandlockSandbox:
    """A process gives up all rights but a few, and another one writes in its stead."""

    mechanism = "landlock and seccomp"

    def __init__(self, places: Places, identity: Identity | None):
        """Raises SandboxUnavailableError if the kernel's Landlock is none, or too old."""
        try:
            found = version()
        except OSError as error:
            raise SandboxUnavailableError(f"the kernel has no Landlock ({error})") from None
        if found < MIN_VERSION:
            raise SandboxUnavailableError(
                f"the kernel's Landlock has version {found}; {MIN_VERSION} (Linux 6.12) keeps "
                "signals inside"
            )
        self._places, self._identity = places, identity

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
        with scratch_folder(self._identity) as scratch:
            prepared = self._prepare(argv, limits, start_in, scratch)
            try:
                return await run_prepared(prepared, limits, stdin, on_output)
            finally:
                disarm(self._places.work)

    def _prepare(
        self, argv: Sequence[str], limits: Limits, start_in: Path, scratch: Path
    ) -> Prepared:
        places = self._places
        writable = [places.work] if places.is_writable else []
        status_file = file_with()
        orders = Orders(
            parent=os.getpid(),
            status_file=status_file,
            argv=list(argv),
            folder=str(start_in),
            readable=[*map(str, self._readable()), str(places.work)],
            scratch=str(scratch),
            roots=[*map(str, writable), str(scratch)],
            protected=[str(one) for one in places.protected],
            rlimits=rlimits(limits, others_tasks=0),
            identity=(self._identity.uid, self._identity.gid) if self._identity else None,
        )
        orders_file = file_with(orders.to_json())
        source = Path(__file__).resolve().parents[4]
        return Prepared(
            argv=[sys.executable, "-I", "-S", "-c", BOOT, str(source), str(orders_file)],
            environment=environment(places, str(scratch)),
            files=[orders_file],
            status_file=status_file,
            growing=[(scratch, SCRATCH_BYTES), *((one, limits.growth_bytes) for one in writable)],
            ends_all_on=signal.SIGTERM,
        )

    def _readable(self) -> Iterator[Path]:
        for place in (*self._places.readable, *map(Path, OF_THE_KERNEL)):
            yield from _without(place, self._places.hidden)


def _without(place: Path, hidden: Iterable[Path]) -> Iterator[Path]:
    """The place, or if something in it is hidden, what is beside that."""
    inside = [one for one in hidden if is_within(one, place)]
    if not inside:
        yield place
    elif place not in inside:
        for child in place.iterdir():
            yield from _without(child, inside)
