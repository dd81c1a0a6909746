"""How does the kernel come to refuse system calls? By a program for its seccomp filter.

Numbers and layouts: seccomp.h, filter.h, audit.h.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from expertmesh.agent.sandbox.kernel.syscalls import LAST_REVIEWED, SUPERVISED, Rule, When, numbers

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SECCOMP_NUMBER = {"x86_64": 317, "aarch64": 277}

KILL_PROCESS, ERRNO, USER_NOTIF, ALLOW = 0x80000000, 0x00050000, 0x7FC00000, 0x7FFF0000
LOAD, AND, JUMP, IF_EQUAL, IF_GREATER, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x06
NUMBER_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16

PR_SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER, FLAG_NEW_LISTENER = 1, 8

Instruction = tuple[int, int, int, int]
"""Code, how many to skip if true and if false, and a number."""


def _unless(when: When, skip: int) -> list[Instruction]:
    """Jump over the `skip` instructions that follow unless the condition holds."""
    last = len(when.values) - 1
    program = [
        (LOAD, 0, 0, ARGUMENTS_AT + 8 * when.argument + 4 * when.high),
        (AND, 0, 0, when.mask),
    ]
    for position, value in enumerate(when.values):
        if when.otherwise:
            program.append((IF_EQUAL, last - position + skip, 0, value))
        else:
            program.append((IF_EQUAL, last - position + 1, 0, value))
    return program if when.otherwise else [*program, (JUMP, 0, 0, skip)]


def _body(rule: Rule) -> list[Instruction]:
    """What is done for the rule's call: return its action, or go on to the next rule."""
    action = USER_NOTIF if rule.error == SUPERVISED else ERRNO | rule.error
    body = [(RETURN, 0, 0, action)]
    for when in reversed(rule.when):
        body = [*_unless(when, skip=len(body)), *body]
    return [*body, (LOAD, 0, 0, NUMBER_AT)] if rule.when else body


def program(rules: Iterable[Rule], machine: str = "") -> bytes:
    """A filter that applies the rules, the first that fits, and allows the rest.

    Calls by another architecture's numbers end the process; unknown calls do not exist.
    Raises KeyError if the machine is not known.
    """
    machine = machine or os.uname().machine
    number_of = numbers(machine)
    instructions: list[Instruction] = [
        (LOAD, 0, 0, ARCH_AT),
        (IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER_AT),
        (IF_GREATER, 0, 1, LAST_REVIEWED),  # also x32's, which have a high bit
        (RETURN, 0, 0, ERRNO | errno.ENOSYS),
    ]
    for rule in rules:
        if rule.call not in number_of:
            continue
        body = _body(rule)
        instructions += [(IF_EQUAL, 0, len(body), number_of[rule.call]), *body]
    instructions.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *one) for one in instructions)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(filter_program: bytes) -> int:
    """Apply a filter with supervised calls to this process and its descendants, for ever.

    Returns the file from which a supervisor reads them. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    loaded = _Program(len(filter_program) // 8, filter_program)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    listener = libc.syscall(
        SECCOMP_NUMBER[os.uname().machine],
        SET_MODE_FILTER,
        FLAG_NEW_LISTENER,
        ctypes.byref(loaded),
    )
    if listener < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    return int(listener)
