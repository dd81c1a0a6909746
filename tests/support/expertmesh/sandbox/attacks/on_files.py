"""Reading and changing files outside; see attacking.py."""

import contextlib
import fcntl
import os
import stat
import struct
import threading
import time

from attacking import IS_X86, attack, read, syscall, written


@attack
def read_a_file_outside(world):
    return read(world.secret)


@attack
def list_a_folder_outside(world):
    return os.listdir(world.outside)


@attack
def read_the_password_hashes(world):
    return read("/etc/shadow")


@attack
def read_by_way_of_dots(world):
    return read(os.path.join(world.work, os.path.relpath(world.secret, world.work)))


@attack
def read_by_a_link_that_was_there(world):
    return read(os.path.join(world.work, "link-out", "secret"))


@attack
def read_by_a_new_link(world):
    os.symlink(world.secret, "new-link")
    return read("new-link")


@attack
def read_by_a_folder_that_is_only_held(world):
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    file = os.open(world.secret.lstrip("/"), os.O_RDONLY, dir_fd=root)
    return os.read(file, 100)


@attack
def read_through_other_roots(world):
    found = []
    for process in ("self", "1", "2", world.decoy):
        for name in ("root", "cwd"):
            with contextlib.suppress(OSError):
                found.append(read(f"/proc/{process}/{name}{world.secret}"))
    return found


@attack
def change_a_file_outside(world):
    return written(world.secret, "a")


@attack
def change_by_a_link(world):
    return written(os.path.join(world.work, "link-out", "secret"), "r+")


@attack
def create_a_file_outside(world):
    return written(os.path.join(world.outside, "new"))


@attack
def create_by_a_link(world):
    os.symlink(os.path.join(world.outside, "created-by-link"), "dangling")
    return written("dangling")


@attack
def create_by_a_folder_that_is_only_held(world):
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    name = os.path.join(world.outside, "held").lstrip("/")
    return os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=root)


@attack
def remove_a_file_outside(world):
    os.unlink(os.path.join(world.outside, "victim"))
    return "removed"


@attack
def move_a_file_out(world):
    written("mine")
    os.rename("mine", os.path.join(world.outside, "moved-out"))
    return "moved out"


@attack
def move_a_file_in(world):
    os.rename(os.path.join(world.outside, "movable"), "moved-in")
    return read("moved-in")


@attack
def link_a_file_in(world):
    os.link(world.secret, "linked-in")
    return read("linked-in")


@attack
def make_a_folder_outside(world):
    os.mkdir(os.path.join(world.outside, "folder"))
    return "made"


@attack
def change_the_mode_of_a_file_outside(world):
    os.chmod(world.secret, 0o777)
    return "changed"


@attack
def change_a_mode_by_a_link(world):
    os.chmod(os.path.join(world.work, "link-out", "secret"), 0o777)
    return "changed"


@attack
def change_a_mode_by_a_file_that_is_only_held(world):
    file = os.open(world.secret, os.O_PATH)
    os.chmod(f"/proc/self/fd/{file}", 0o777)
    return "changed"


@attack
def change_the_times_of_a_file_outside(world):
    os.utime(world.secret, (1, 1))
    return "changed"


@attack
def change_the_times_of_a_readable_file(world):
    with open(os.path.join(world.work, ".git", "config")) as file:
        os.utime(file.fileno(), (1, 1))
    return "changed"


@attack
def truncate_a_file_outside(world):
    os.truncate(world.secret, 0)
    return "truncated"


@attack
def give_a_file_outside_an_attribute(world):
    os.setxattr(world.secret, "user.attacked", b"1")
    return "set"


@attack
def give_a_file_outside_to_another_group(world):
    os.chown(world.secret, -1, os.getgid())
    return "changed"


@attack
def set_flags_of_a_readable_file(world):
    no_dump = 0x40
    with open(os.path.join(world.work, ".git", "config")) as file:
        fcntl.ioctl(file.fileno(), 0x40086602, struct.pack("l", no_dump))
    return "set"


@attack
def make_a_device(world):
    os.mknod("device", 0o666 | stat.S_IFBLK, os.makedev(254, 0))
    return "made"


@attack
def make_a_program_with_its_owners_rights(world):
    """It would serve any other user of the machine."""
    found = []
    written("program")
    for mode in (0o4755, 0o2755, 0o6755):
        for number, make in enumerate((
            lambda path, mode: os.chmod("program", mode),
            lambda path, mode: os.fchmod(os.open("program", os.O_RDONLY), mode),
            lambda path, mode: os.open(path, os.O_CREAT | os.O_WRONLY, mode),
            lambda path, mode: os.mknod(path, mode | stat.S_IFREG),
            lambda path, mode: os.open(".", os.O_TMPFILE | os.O_WRONLY, mode),
            lambda path, mode: syscall(85, 85, path.encode(), mode) if IS_X86 else None,
            lambda path, mode: syscall(
                437, 437, -100, path.encode(), struct.pack("3Q", os.O_CREAT, mode, 0), 24
            ),
            lambda path, mode: syscall(452, 452, -100, b"program", mode, 0),
        )):  # fmt: skip
            path = f"program-{mode}-{number}"
            with contextlib.suppress(OSError):
                file = make(path, mode)
                status = os.fstat(file) if file else os.stat("program")
                if status.st_mode & 0o6000 or (
                    os.path.exists(path) and os.stat(path).st_mode & 0o6000
                ):
                    found.append((oct(mode), number))
    return found


@attack
def move_the_work_folder(world):
    os.rename(world.work, world.work + "-moved")
    return "moved"


@attack
def write_to_the_system(world):
    found = []
    for folder in ("/", "/usr", "/usr/bin", "/etc", "/dev", "/sys", "/proc/sys/kernel", "/var"):
        with contextlib.suppress(OSError):
            found.append(written(os.path.join(folder, "attacked")))
    return found


@attack
def write_to_the_kernel(world):
    found = []
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/power/state"):
        try:
            os.open(path, os.O_WRONLY)
            found.append(path)
        except OSError:
            pass
    return found


@attack
def see_shared_memory_of_others(world):
    return read(world.shared_memory)


@attack
def swap_a_folder_while_it_is_used(world):
    """A race: `swap/x` is created while `swap` turns from a folder into a link out, and back."""
    stop = time.monotonic() + 0.3

    def turn():
        while time.monotonic() < stop:
            for make in (lambda: os.mkdir("swap"), lambda: os.symlink(world.outside, "swap")):
                for undo in (os.unlink, os.rmdir):
                    with contextlib.suppress(OSError):
                        undo("swap")
                with contextlib.suppress(OSError):
                    make()

    thread = threading.Thread(target=turn)
    thread.start()
    while time.monotonic() < stop:
        for act in (
            lambda: os.open("swap/raced", os.O_CREAT | os.O_WRONLY, 0o600),
            lambda: os.mkdir("swap/raced-folder"),
            lambda: os.unlink("swap/victim"),
            lambda: os.chmod("swap/secret", 0o777),
            lambda: os.unlink("swap/raced"),
            lambda: os.rmdir("swap/raced-folder"),
        ):
            try:
                file = act()
                if file is not None:
                    os.close(file)
            except OSError:
                pass
    thread.join()
    return None  # the host looks whether anything has changed
