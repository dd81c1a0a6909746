"""Which sandbox does this machine have? The best one that works, or none and the reason."""

import logging
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from expertmesh.agent.sandbox.bubblewrap import BubblewrapSandbox
from expertmesh.agent.sandbox.folders.drop_root import identity_for
from expertmesh.agent.sandbox.folders.places import lay_out
from expertmesh.agent.sandbox.kernel.syscalls import MACHINES
from expertmesh.agent.sandbox.landlock.sandbox import LandlockSandbox
from expertmesh.agent.sandbox.policy import Mode, Sandbox, SandboxUnavailableError
from expertmesh.agent.sandbox.probe import probe
from expertmesh.agent.sandbox.unconfined import Unconfined

logger = logging.getLogger(__name__)

APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


def choose_sandbox(
    work_dir: Path, mode: Mode = "workspace", protected: Sequence[Path] = ()
) -> Sandbox:
    """A sandbox that has been tried on this machine; nothing is left to luck.

    `protected`: files and folders in the work folder that commands may not change; relative ones
    are taken from there. Its `.git` always is one.

    Raises SandboxUnavailableError, which says what is missing and what to install, and ValueError
    for a folder that no sandbox should be given.
    """
    if mode == "off":
        return Unconfined(work_dir)
    if mode not in ("read-only", "workspace"):
        raise ValueError(f"mode is {mode!r}; allowed are read-only, workspace and off")
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        raise SandboxUnavailableError(
            f"there is no sandbox for {platform.system()} on {platform.machine()}, only for Linux "
            "on x86_64 and aarch64: use a virtual machine or a container with it"
        )
    identity = identity_for(work_dir)
    places = lay_out(work_dir, mode, protected, identity)
    reasons = []
    for name, kind in (("bubblewrap", BubblewrapSandbox), ("Landlock", LandlockSandbox)):
        try:
            sandbox: Sandbox = kind(places, identity)
            probe(sandbox, has_namespaces=kind is BubblewrapSandbox)
        except SandboxUnavailableError as error:
            logger.info("no sandbox by %s: %s", name, error)
            reasons.append(f"{name}: {error}")
        else:
            return sandbox
    raise SandboxUnavailableError("\n".join(["No sandbox works here.", *reasons, advice()]))


def advice() -> str:
    """What to do where none works."""
    try:
        is_restricted = APPARMOR.read_text().strip() == "1"
    except OSError:
        is_restricted = False
    if is_restricted:
        return (
            "AppArmor keeps user namespaces from programs without a profile (Ubuntu 23.10 and "
            "later). Install bubblewrap and apparmor-profiles, copy the profile "
            "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict to /etc/apparmor.d/, and "
            "load it: apparmor_parser -r /etc/apparmor.d/bwrap-userns-restrict"
        )
    return (
        "Install bubblewrap (apt install bubblewrap, dnf install bubblewrap). It needs user "
        "namespaces, which some containers refuse; Linux 6.12 or newer does without them."
    )
