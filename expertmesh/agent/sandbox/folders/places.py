"""Which folders does a command see, and which may it write?"""

import logging
import os
import pwd
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from expertmesh.agent.sandbox.folders.containment import is_within
from expertmesh.agent.sandbox.folders.drop_root import can_reach
from expertmesh.agent.sandbox.folders.identity import Identity
from expertmesh.agent.sandbox.folders.repositories import is_bare, paths_of_git
from expertmesh.agent.sandbox.policy import Mode, SandboxUnavailableError

logger = logging.getLogger(__name__)

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
OF_ETC = (
    "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/ssl/certs",
    "/etc/ssl/cert.pem", "/etc/ca-certificates", "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
)  # fmt: skip
"""All that is visible of /etc, except users, groups and hosts, which are made up."""
NO_WORK_FOLDERS = (
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt",
    "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/local", "/var",
    "/var/tmp",
)  # fmt: skip
SYSTEM_STATE = ("/boot", "/dev", "/etc", "/proc", "/sys")
OF_INSTALLERS = ("pip.conf", ".condarc")
"""Files beside an interpreter that may hold passwords of package indexes."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """All paths are absolute, and the work folder's is real."""

    work: Path
    is_writable: bool
    readable: tuple[Path, ...]
    """Files and folders outside the work folder."""
    protected: tuple[Path, ...]
    """Inside the work folder, not to be changed, removed or moved; none is a symbolic link."""
    hidden: tuple[Path, ...]
    """Files in readable folders that are not readable."""
    programs: tuple[Path, ...]
    """Where programs are looked for, the running interpreter's own folder first."""


def lay_out(
    work_dir: Path, mode: Mode, protected: Iterable[Path], identity: Identity | None
) -> Places:
    """What a sandbox for this folder consists of.

    Raises ValueError if the folder is none, or one that a sandbox must not be given, and
    SandboxUnavailableError if the user whom commands run as cannot reach it.
    """
    homes = _homes(identity)
    work = _checked(work_dir, homes)
    if not can_reach(identity, work):
        whom = f"user {identity.uid}" if identity else "this user"
        raise SandboxUnavailableError(
            f"{work} is not open to {whom}, as whom commands would run: a folder on the way, or "
            "it itself, may not be entered"
        )
    prefixes = interpreters(identity, homes)
    own_code = Path(__file__).resolve().parents[3]  # imported piece by piece while this runs
    asked = (_absolute(work / path) for path in protected)
    inside = [
        place
        for place in (*paths_of_git(work), *asked, *prefixes, own_code)
        if is_within(place, work)
    ]
    if work in inside or is_within(work, own_code):
        raise ValueError(f"{work} cannot be the work folder: all of it would be read-only")
    for place in inside:
        _refuse_links(work, place)
    _warn_of_imports(work, inside)
    outside = [place for place in prefixes if not is_within(place, work)]
    system = [Path(place) for place in (*SYSTEM, *OF_ETC) if os.path.lexists(place)]
    hidden = [prefix / name for prefix in prefixes for name in OF_INSTALLERS]
    return Places(
        work=work,
        is_writable=mode == "workspace",
        readable=_outermost([*system, *outside]),
        protected=_outermost(inside),
        hidden=tuple(place for place in hidden if place.is_file()),
        programs=(
            *([Path(sys.executable).parent] if prefixes else []),
            *map(Path, ("/usr/local/bin", "/usr/bin", "/bin")),
        ),
    )


def interpreters(identity: Identity | None, homes: Sequence[Path]) -> tuple[Path, ...]:
    """The folders of the running interpreter; none if that user cannot reach them all.

    Then commands find the system's.
    """
    real = Path(sys.executable).resolve()
    folders = dict.fromkeys(
        Path(os.path.abspath(one))
        for one in (sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix))
    )
    if not is_within(real, Path("/usr")):
        folders[real.parent.parent] = None  # links into it may go through any other name
    kept = tuple(one for one in folders if not is_within(one, Path("/usr")))
    if any(is_within(home, one) for home in homes for one in kept):  # not all that is in it
        return ()
    reachable = all(can_reach(identity, one) for one in (*kept, real))
    return kept if reachable else ()


def _absolute(path: Path) -> Path:
    """Without `..`, with symbolic links resolved in all but the last part."""
    path = Path(os.path.abspath(path))
    return path.parent.resolve() / path.name


def _homes(identity: Identity | None) -> tuple[Path, ...]:
    """The home folders of this user and of the one whom commands run as, in all spellings."""
    found = {os.path.expanduser("~")}
    for uid in {os.getuid(), identity.uid if identity else os.getuid()}:
        with suppress(KeyError):
            found.add(pwd.getpwuid(uid).pw_dir)
    absolute = [Path(one) for one in found if os.path.isabs(one)]
    # Users without one have names such as / and /nonexistent there.
    return tuple({one for path in absolute for one in (path, path.resolve()) if one != Path("/")})


def _checked(work_dir: Path, homes: Sequence[Path]) -> Path:
    work = work_dir.resolve()
    if not work.is_dir():
        raise ValueError(f"{work_dir} is not a folder")
    if str(work) in NO_WORK_FOLDERS or any(is_within(work, Path(one)) for one in SYSTEM_STATE):
        raise ValueError(f"{work} is the system's; the work folder must be one of your own")
    if any(is_within(home, work) for home in homes):
        raise ValueError(f"{work} holds your home folder; the work folder must be one inside it")
    if is_bare(work):
        raise ValueError(f"{work} is a bare git repository; the work folder must be a working copy")
    return work


def _refuse_links(work: Path, place: Path) -> None:
    for one in (place, *place.parents):
        if one == work:
            return
        if one.is_symlink():
            raise ValueError(f"{one} is a symbolic link, and cannot be protected from changes")


def _warn_of_imports(work: Path, protected: Sequence[Path]) -> None:
    """What this process imports from there later, a command may have written."""
    for entry in sys.path:
        place = Path(entry or ".").resolve()
        if is_within(place, work) and not any(is_within(place, one) for one in protected):
            logger.warning("modules are imported from %s, which commands can change", place)


def _outermost(places: Sequence[Path]) -> tuple[Path, ...]:
    """Without those that lie in others; a link to a folder stays beside the folder."""
    kept = dict.fromkeys(places)
    return tuple(
        one for one in kept if not any(other in one.parents for other in kept if other != one)
    )


def environment(places: Places, home: str) -> dict[str, str]:
    """All variables that a command gets; nothing is taken over from this process."""
    return {
        "PATH": os.pathsep.join(map(str, places.programs)),
        "HOME": home,
        "TMPDIR": home,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": home,
        "OPENBLAS_NUM_THREADS": "1",  # or each import reserves memory for every core
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }
