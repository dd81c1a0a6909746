"""Other processes, and secrets in them; see attacking.py."""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import stat

from attacking import alone, attack, read, syscall


@attack
def find_open_files_of_others(world):
    found = []
    for file in range(3, 256):
        try:
            status = os.fstat(file)
        except OSError:
            continue
        found.append((file, stat.S_IFMT(status.st_mode)))
    return found


@attack
def find_secrets_in_other_processes(world):
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        for name in ("environ", "cmdline"):
            try:
                if world.token in read(f"/proc/{process}/{name}"):
                    found.append((process, name))
            except OSError:
                pass
    return found


@attack
def read_the_environment_of_the_first_process(world):
    text = read("/proc/1/environ")
    return text if world.token in text else None


@attack
def find_the_secret_in_the_environment(world):
    return [name for name, value in os.environ.items() if world.token in name + value]


@attack
def find_the_desktop(world):
    names = ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK")
    return [name for name in names if name in os.environ]


@attack
def signal_a_process_outside(world):
    os.kill(world.decoy, signal.SIGURG)
    return "sent"


@attack
def end_the_sandbox(world):
    """Where it works, nobody hears of the results of all these attacks."""
    os.kill(os.getppid(), signal.SIGSTOP)
    os.kill(os.getppid(), signal.SIGKILL)
    return None


@alone
def signal_all_processes(world):
    os.kill(-1, signal.SIGURG)  # which nobody minds who does not wait for it
    return None  # the host looks whether the decoy has got it


@attack
def signal_by_a_process_file(world):
    signal.pidfd_send_signal(os.pidfd_open(world.decoy), signal.SIGURG)
    return "sent"


@alone
def own_the_signals_of_a_file(world):
    """The kernel sends SIGURG to the owner when the pipe becomes readable."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(read_end, 10, signal.SIGURG)  # F_SETSIG
    fcntl.fcntl(read_end, fcntl.F_SETOWN, world.decoy)
    fcntl.fcntl(read_end, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(write_end, b"x")
    return None


@attack
def trace_a_process_outside(world):
    return syscall(101, 117, 16, world.decoy, 0, 0) == 0 and "attached"  # PTRACE_ATTACH


@alone
def be_traced(world):
    return syscall(101, 117, 0, 0, 0, 0) == 0 and "PTRACE_TRACEME"


@attack
def read_the_memory_of_a_process_outside(world):
    with open(f"/proc/{world.decoy}/mem", "rb") as file:
        return "opened" if file else None


@attack
def copy_the_memory_of_a_process(world):
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    return syscall(310, 270, os.getppid(), vector, 1, vector, 1, 0) >= 0 and "read"


@attack
def take_a_file_of_a_process(world):
    return syscall(438, 438, os.pidfd_open(os.getppid()), 0, 0) >= 0 and "taken"


@attack
def limit_a_process_outside(world):
    resource.prlimit(world.decoy, resource.RLIMIT_CPU, (1, 1))
    return "limited"


@attack
def slow_a_process_outside_down(world):
    os.setpriority(os.PRIO_PROCESS, world.decoy, 19)
    return "slowed"


@attack
def slow_all_of_the_user_down(world):
    os.setpriority(os.PRIO_USER, 0, 1)
    return None  # the host looks whether the decoy is slower


@attack
def bind_a_process_outside_to_a_core(world):
    os.sched_setaffinity(world.decoy, {0})
    return "bound"


@attack
def open_files_of_the_supervisor(world):
    found = []
    for file in range(3, 32):
        for name in ("/proc/self/fd", "/dev/fd", f"/proc/{os.getppid()}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.open(f"{name}/{file}", os.O_RDWR))
    return found
