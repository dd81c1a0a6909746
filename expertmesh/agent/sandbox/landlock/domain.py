"""How does a process give up files, TCP and signals to others for ever? By a Landlock domain.

Layouts and bits: landlock.h. Domains nest: a process can signal those in domains that were
made inside its own, never the other way round.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from expertmesh.agent.sandbox.kernel.seccomp import PR_SET_NO_NEW_PRIVS

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION, PATH_BENEATH = 1, 1
MIN_VERSION = 6
"""The first that keeps signals inside; Linux 6.12."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK, TRUNCATE, IOCTL_DEVICE = 1 << 6, 1 << 11, 1 << 14, 1 << 15
ALL_OF_FILES = (1 << 16) - 1
ALL_OF_TCP = (1 << 0) | (1 << 1)
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1

READING = EXECUTE | READ_FILE | READ_DIR
WRITING = ALL_OF_FILES & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEVICE)
FITTING_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
"""The rights that a rule for something else than a folder may give."""


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return int(result)


def version() -> int:
    """Which version of Landlock the kernel has. Raises OSError if it has none, or it is off."""
    return _syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(ASK_VERSION))


def _ruleset(files: int, tcp: int, scopes: int) -> int:
    layout = struct.pack("=QQQ", files, tcp, scopes)
    return _syscall(CREATE_RULESET, layout, ctypes.c_size_t(len(layout)), ctypes.c_uint32(0))


def _enter(ruleset: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _syscall(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def keep_signals_inside() -> None:
    """From now on this thread, and what it starts, signals nobody outside. Raises OSError."""
    _enter(_ruleset(0, 0, SIGNALS))


def confine(readable: Iterable[Path], writable: Iterable[Path], devices: Iterable[Path]) -> None:
    """From now on this thread, and what it starts, opens only these files and folders.

    Neither are there TCP, abstract sockets and signals to others. What does not exist is left
    out. Raises OSError.
    """
    ruleset = _ruleset(ALL_OF_FILES, ALL_OF_TCP, ABSTRACT_SOCKETS | SIGNALS)
    for paths, rights in (
        (readable, READING),
        (writable, WRITING),
        (devices, READ_FILE | WRITE_FILE),
    ):
        for path in paths:
            _allow(ruleset, path, rights)
    _enter(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= FITTING_A_FILE
        layout = struct.pack("=Qi", rights, place)
        _syscall(
            ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(PATH_BENEATH), layout, ctypes.c_uint32(0)
        )
    finally:
        os.close(place)
