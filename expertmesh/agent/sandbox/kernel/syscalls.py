"""Which system calls are refused to a command in a sandbox, and what are their numbers?

Everything after the last call that was looked at when this was written is refused, too.
"""

import errno
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

LAST_REVIEWED = 462
"""mseal. From 424 on, both machines have the same numbers."""

NUMBERS: Mapping[str, tuple[int | None, int | None]] = MappingProxyType({
    "_sysctl": (156, None), "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171),
    "bpf": (321, 280), "chmod": (90, None), "chown": (92, None), "chroot": (161, 51),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220),
    "clone3": (435, 435), "creat": (85, None), "delete_module": (176, 106),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "fchown": (93, 55), "fchownat": (260, 54),
    "finit_module": (313, 273), "fremovexattr": (199, 16), "fsconfig": (431, 431),
    "fsetxattr": (190, 7), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "futimesat": (261, None), "init_module": (175, 105), "inotify_add_watch": (254, 27),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425),
    "ioctl": (16, 29), "ioperm": (173, None), "iopl": (172, None), "ioprio_set": (251, 30),
    "kcmp": (312, 272), "kexec_file_load": (320, 294), "kexec_load": (246, 104),
    "keyctl": (250, 219), "lchown": (94, None), "link": (86, None), "linkat": (265, 37),
    "listmount": (458, 458), "lookup_dcookie": (212, 18), "lremovexattr": (198, 15),
    "lsetxattr": (189, 6), "lsm_set_self_attr": (460, 460), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "migrate_pages": (256, 238), "mkdir": (83, None),
    "mkdirat": (258, 34), "mknod": (133, None), "mknodat": (259, 33), "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "msgctl": (71, 187), "msgget": (68, 186),
    "msgrcv": (70, 188), "msgsnd": (69, 189), "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42), "open": (2, None), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "openat": (257, 56), "openat2": (437, 437),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41), "prlimit64": (302, 261), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "reboot": (169, 142), "removexattr": (197, 14),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "request_key": (249, 218), "rmdir": (84, None), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "semctl": (66, 191), "semget": (64, 190), "semop": (65, 193), "semtimedop": (220, 192),
    "setdomainname": (171, 162), "sethostname": (170, 161), "setns": (308, 268),
    "setpriority": (141, 140), "setrlimit": (160, 164), "settimeofday": (164, 170),
    "setxattr": (188, 5), "shmat": (30, 196), "shmctl": (31, 195), "shmget": (29, 194),
    "socket": (41, 198), "statmount": (457, 457), "swapoff": (168, 225), "swapon": (167, 224),
    "symlink": (88, None), "symlinkat": (266, 36), "sysfs": (139, None), "syslog": (103, 116),
    "truncate": (76, 45), "umount2": (166, 39), "unlink": (87, None), "unlinkat": (263, 35),
    "unshare": (272, 97), "uselib": (134, None), "userfaultfd": (323, 282),
    "ustat": (136, None), "utime": (132, None), "utimensat": (280, 88), "utimes": (235, None),
    "vhangup": (153, 58),
})  # fmt: skip
"""Name -> its number on x86-64 and on 64-bit ARM; None where there is no such call."""

MACHINES = ("x86_64", "aarch64")


def numbers(machine: str = "") -> dict[str, int]:
    """Name -> number on this machine, without the calls that it lacks.

    Raises KeyError if the numbers of the machine are not known.
    """
    machine = machine or os.uname().machine
    if machine not in MACHINES:
        raise KeyError(machine)
    column = MACHINES.index(machine)
    all_of_them = ((name, pair[column]) for name, pair in NUMBERS.items())
    return {name: number for name, number in all_of_them if number is not None}


class When(NamedTuple):
    """Holds if the low 32 bits of an argument, masked, are among the values; or are not."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    otherwise: bool = False
    """Turn it round."""
    high: bool = False
    """Look at the high 32 bits instead: an address may have zeros in the low ones."""


class Rule(NamedTuple):
    """What becomes of a call if all conditions hold."""

    call: str
    error: int
    """Which errno it gets. SUPERVISED: it is handed to the supervisor."""
    when: tuple[When, ...] = ()


SUPERVISED = -1
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
RLIMIT_CORE = 4
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
CHANGES_A_FILE = 0o1103
"""Of open's flags: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC."""
CREATES_A_FILE = 0o20000100
"""O_CREAT and O_TMPFILE, which take a mode."""
OWNERS_RIGHTS = 0o6000
"""Mode bits of programs that run with the rights of their owner or group, whoever starts them."""


def _refused(error: int, calls: str) -> tuple[Rule, ...]:
    return tuple(Rule(call, error) for call in calls.split())


EVERYWHERE = (
    *_refused(errno.EPERM, """
        mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick
        mount_setattr statmount listmount unshare setns
        ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp
        pidfd_getfd perf_event_open bpf userfaultfd keyctl add_key request_key
        shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semtimedop semctl
        mq_open mq_unlink name_to_handle_at open_by_handle_at fanotify_init fanotify_mark
        init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff
        acct quotactl quotactl_fd syslog settimeofday clock_settime adjtimex clock_adjtime
        sethostname setdomainname vhangup iopl ioperm modify_ldt personality lookup_dcookie
        nfsservctl uselib ustat sysfs _sysctl move_pages migrate_pages lsm_set_self_attr"""),
    # Callers then try something else: fork by clone, whose flags can be looked at, files in /tmp.
    *_refused(errno.ENOSYS, """
        clone3 io_uring_setup io_uring_enter io_uring_register memfd_create memfd_secret"""),
    # A program with its owner's rights would serve every other user of the machine. openat2 has its
    # mode in memory; callers then take openat.
    *_refused(errno.ENOSYS, "openat2"),
    *(
        Rule(call, errno.EPERM, (When(mode, (0,), mask=OWNERS_RIGHTS, otherwise=True),))
        for call, mode in (
            *(("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("creat", 1)),
            *(("mknod", 1), ("mknodat", 2)),
        )
    ),
    *(
        Rule(
            call,
            errno.EPERM,
            (
                When(flags, (0,), mask=CREATES_A_FILE, otherwise=True),
                When(flags + 1, (0,), mask=OWNERS_RIGHTS, otherwise=True),
            ),
        )
        for call, flags in (("open", 1), ("openat", 2))
    ),
    Rule("clone", errno.EPERM, (When(0, (0,), mask=NEW_NAMESPACES, otherwise=True),)),
    # Typing into the terminal that it was started from.
    Rule("ioctl", errno.EPERM, (When(1, (TIOCSTI, TIOCLINUX)),)),
    # A limit of 1 keeps crashes from the host's crash handler, which other limits do not.
    Rule("setrlimit", errno.EPERM, (When(0, (RLIMIT_CORE,)),)),
    *(
        Rule(
            "prlimit64",
            errno.EPERM,
            (When(1, (RLIMIT_CORE,)), When(2, (0,), otherwise=True, high=high)),
        )
        for high in (False, True)
    ),
)  # fmt: skip
"""What no command needs and the kernel might have holes in, and what memory is not counted for."""

WITH_OWN_NETWORK = (
    # Others, such as vsock, do not end at the borders of a network namespace.
    Rule("socket", errno.EAFNOSUPPORT, (When(0, (UNIX, INET, INET6, NETLINK), otherwise=True),)),
)

WITHOUT_NAMESPACES = (
    *_refused(errno.EPERM, """
        socket inotify_add_watch chown fchown lchown fchownat utime utimes futimesat"""),
    *_refused(errno.EOPNOTSUPP, """
        setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr"""),
    # Flags of files and subvolumes can be changed through files that are open for reading.
    Rule("ioctl", errno.ENOTTY, (When(1, (0x5400,), mask=0xFF00, otherwise=True),)),
    # Other processes of the same user.
    Rule("prlimit64", errno.EPERM, (When(0, (0,), otherwise=True),)),
    Rule("setpriority", errno.EPERM, (When(0, (0,), otherwise=True),)),
    Rule("setpriority", errno.EPERM, (When(1, (0,), otherwise=True),)),
    Rule("ioprio_set", errno.EPERM, (When(0, (1,), otherwise=True),)),
    Rule("ioprio_set", errno.EPERM, (When(1, (0,), otherwise=True),)),
    *(
        Rule(call, errno.EPERM, (When(0, (0,), otherwise=True),))
        for call in ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
    ),
    *(
        Rule(call, SUPERVISED, (When(argument, (0,), mask=CHANGES_A_FILE, otherwise=True),))
        for call, argument in (("open", 1), ("openat", 2))
    ),
    *_refused(SUPERVISED, """
        creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink
        symlinkat truncate chmod fchmod fchmodat fchmodat2 utimensat"""),
)  # fmt: skip
"""What Landlock does not judge, and what a supervisor does in a command's stead."""
