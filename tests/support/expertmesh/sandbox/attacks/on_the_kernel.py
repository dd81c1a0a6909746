"""System calls that a command does not need; see attacking.py."""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import time

from attacking import IS_X86, LIBC, alone, attack, git, syscall


@alone
def make_a_user_namespace(world):
    if LIBC.unshare(0x10000000) == 0:
        return "unshare"
    raise OSError(ctypes.get_errno(), "refused")


@alone
def make_a_user_namespace_by_clone(world):
    child = syscall(56, 220, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    return "clone"


@alone
def make_a_user_namespace_by_clone3(world):
    layout = struct.pack("8Q", 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    child = syscall(435, 435, layout, len(layout))
    if child == 0:
        os._exit(0)
    return "clone3"


@attack
def make_namespaces_by_a_program(world):
    done = subprocess.run(["unshare", "-Urnm", "true"], capture_output=True)
    return "unshare" if done.returncode == 0 else None


@attack
def join_a_namespace(world):
    file = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    if LIBC.setns(file, 0) == 0:
        return "setns"
    raise OSError(ctypes.get_errno(), "refused")


@attack
def mount_something(world):
    os.makedirs("mountpoint", exist_ok=True)
    if LIBC.mount(b"none", b"mountpoint", b"tmpfs", 0, None) == 0:
        return "mounted"
    raise OSError(ctypes.get_errno(), "refused")


@attack
def unmount_what_protects(world):
    if LIBC.umount2(os.fsencode(git(world)), 2) == 0:
        return "unmounted"
    raise OSError(ctypes.get_errno(), "refused")


@attack
def mount_by_the_new_calls(world):
    return syscall(428, 428, -100, b"/", 1) >= 0 and "open_tree"


@attack
def open_a_new_file_system(world):
    return syscall(430, 430, b"tmpfs", 0) >= 0 and "fsopen"


@attack
def use_io_uring(world):
    return syscall(425, 425, 4, ctypes.create_string_buffer(120)) >= 0 and "io_uring"


@attack
def load_a_bpf_program(world):
    return syscall(321, 280, 0, ctypes.create_string_buffer(128), 128) >= 0 and "bpf"


@attack
def handle_page_faults(world):
    return syscall(323, 282, 1) >= 0 and "userfaultfd"


@attack
def count_events(world):
    layout = ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0), 112)
    return syscall(298, 241, layout, 0, -1, -1, 0) >= 0 and "perf_event_open"


@attack
def use_keys(world):
    return syscall(250, 219, 0, -3, 1) >= 0 and "keyctl"


@attack
def add_a_key(world):
    return syscall(248, 217, b"user", b"attack", b"x", 1, -3) >= 0 and "add_key"


@attack
def run_a_file_in_memory(world):
    file = os.memfd_create("attack")
    os.write(file, b"#!/bin/sh\nexit 0\n")
    return "memfd"


@attack
def hide_memory(world):
    return syscall(447, 447, 0) >= 0 and "memfd_secret"


@attack
def share_memory_with_others(world):
    return syscall(29, 194, world.new_shm_key, 4096, 0o1666) >= 0 and "shmget"


@attack
def read_shared_memory_of_others(world):
    return syscall(29, 194, world.shm_key, 0, 0) >= 0 and "shmget"


@attack
def send_messages_to_others(world):
    return syscall(240, 180, b"attack", os.O_CREAT | os.O_RDWR, 0o600, 0) >= 0 and "mq_open"


@attack
def open_a_file_by_its_handle(world):
    handle = ctypes.create_string_buffer(struct.pack("II", 128, 0), 136)
    mount = ctypes.c_int()
    syscall(303, 264, -100, os.fsencode(world.work), handle, ctypes.byref(mount), 0)
    return "name_to_handle_at"


@attack
def watch_a_folder_outside(world):
    file = LIBC.inotify_init1(0)
    if file >= 0 and LIBC.inotify_add_watch(file, os.fsencode(world.outside), 0xFFF) >= 0:
        return "watching"
    raise OSError(ctypes.get_errno(), "refused")


@attack
def watch_all_files(world):
    return syscall(300, 262, 0x200, 0) >= 0 and "fanotify"


@attack
def read_the_kernels_log(world):
    return syscall(103, 116, 10, 0, 0) >= 0 and "syslog"


@attack
def change_how_programs_are_loaded(world):
    return syscall(135, 92, 0x0040000) >= 0 and "ADDR_NO_RANDOMIZE"


@attack
def call_what_is_newer_than_the_filter(world):
    for number in (463, 467, 469, 470):
        try:
            syscall(number, number, 0, 0, 0, 0)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                return f"{number}: {error.errno}"
        else:
            return f"{number} exists"
    return None


@alone
def call_by_the_x32_numbers(world):
    """socket, which is refused or filtered by its usual number."""
    if not IS_X86:
        return None
    return syscall(0x40000000 | 41, 0, 40, 1, 0) >= 0 and "socket(AF_VSOCK)"


@alone
def call_by_the_32_bit_gate(world):
    """getpid by int 0x80, in code of our own."""
    if not IS_X86:
        return None
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000cd80c3"))
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    number = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    return f"int 0x80 says {number}" if number > 0 else None


@attack
def type_into_the_terminal(world):
    found = []
    for file in (0, 1, 2):
        try:
            fcntl.ioctl(file, 0x5412, b"x")
            found.append(file)
        except OSError:
            pass
    try:
        fcntl.ioctl(os.open("/dev/tty", os.O_RDWR), 0x5412, b"x")
        found.append("/dev/tty")
    except OSError:
        pass
    return found


@attack
def type_into_a_terminal_of_ones_own(world):
    """The filter itself: there nothing but the filter refuses it."""
    _, terminal = os.openpty()
    fcntl.ioctl(terminal, 0x5412, b"x")
    return "typed"


@attack
def type_with_high_bits(world):
    """The kernel looks at the low 32 bits of the request only."""
    _, terminal = os.openpty()
    request = ctypes.c_ulong(0xFFFFFFFF00005412)
    return LIBC.ioctl(terminal, request, b"x") == 0 and "typed"


@attack
def keep_rights_after_exec(world):
    return "new privileges" if LIBC.prctl(39, 0, 0, 0, 0) != 1 else None  # PR_GET_NO_NEW_PRIVS


@attack
def have_capabilities(world):
    header, sets = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    syscall(125, 90, header, sets)
    return sets.raw.hex() if any(sets.raw) else None


@attack
def be_root(world):
    return (
        [os.getuid(), os.geteuid()] if 0 in (os.getuid(), os.geteuid(), *os.getgroups()) else None
    )


@alone
def become_root(world):
    os.setuid(0)
    return "root"


@alone
def run_a_program_with_its_owners_rights(world):
    done = subprocess.run([world.set_uid_program, "-u"], capture_output=True, text=True)
    return done.stdout if done.stdout.strip() == "0" else None


@alone
def raise_a_limit(world):
    for kind in (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
        _, hard = resource.getrlimit(kind)
        if hard == resource.RLIM_INFINITY:
            return "unlimited"
        resource.setrlimit(kind, (hard + 1, hard + 1))
    return "raised"


@alone
def allow_a_crash_handler(world):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return "allowed"


@attack
def change_the_clock(world):
    time.clock_settime(time.CLOCK_REALTIME, 1)
    return "changed"


@attack
def change_the_hosts_name(world):
    socket.sethostname("attacked")
    return "changed"
