"""What a hostile program in the sandbox tries: run there by a plain Python, without packages.

`python3 attacking.py WORLD [NAME ...]`: WORLD is a file with what the host has prepared (world.py),
the names are those of the attacks to try, or none for all. Each returns what it got out of it, or
nothing, or raises. The last line on stdout is JSON: name -> what it got, or null.
"""

import ctypes
import json
import os
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
IS_X86 = os.uname().machine == "x86_64"
ATTACKS = set()
ALONE = set()


def attack(function):
    ATTACKS.add(function)
    return function


def alone(function):
    """In a process of its own, which it may lose."""
    ALONE.add(function)
    return attack(function)


class World:
    """Paths, ports and processes outside the sandbox."""

    def __init__(self, known):
        self.__dict__.update(known)


def syscall(x86, arm, *arguments):
    result = LIBC.syscall(ctypes.c_long(x86 if IS_X86 else arm), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def written(path, mode="w"):
    with open(path, mode) as file:
        file.write("attacked\n")
    return f"wrote {path}"


def git(world, *names):
    return os.path.join(world.work, ".git", *names)


def run_alone(function, world):
    """Its result, through a pipe, from a process that may end in any way."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = function(world)
        except Exception:
            found = None
        os.write(write_end, json.dumps(found).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        said = file.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def main():
    import on_files
    import on_processes
    import on_protected_files
    import on_the_kernel
    import on_the_network

    modules = (on_processes, on_files, on_protected_files, on_the_network, on_the_kernel)
    functions = [
        one
        for module in modules
        for one in vars(module).values()
        if callable(one) and one in ATTACKS
    ]
    world = World(json.loads(read(sys.argv[1])))
    results = {}
    for function in functions:
        name = function.__name__
        if name not in sys.argv[2:] and len(sys.argv) > 2:
            continue
        try:
            found = run_alone(function, world) if function in ALONE else function(world)
            results[name] = repr(found) if found else None
        except Exception:
            results[name] = None
    print(json.dumps(results))


if __name__ == "__main__":
    sys.modules["attacking"] = sys.modules["__main__"]  # so that there is one registry
    main()
