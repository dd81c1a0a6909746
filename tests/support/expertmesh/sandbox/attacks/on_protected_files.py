"""Changing what is protected in the work folder; see attacking.py."""

import ctypes
import os

from attacking import attack, git, syscall, written


@attack
def change_gits_configuration(world):
    return written(git(world, "config"), "a")


@attack
def replace_gits_configuration(world):
    written("config")
    os.replace("config", git(world, "config"))
    return "replaced"


@attack
def remove_gits_configuration(world):
    os.unlink(git(world, "config"))
    return "removed"


@attack
def write_gits_configuration_by_a_link(world):
    os.link(git(world, "config"), "config-link")
    return written("config-link", "a")


@attack
def write_gits_configuration_by_a_symbolic_link(world):
    os.symlink(git(world), "git-link")
    return written("git-link/config", "a")


@attack
def point_git_elsewhere(world):
    return written(git(world, "commondir"))


@attack
def add_a_hook(world):
    return written(git(world, "hooks", "post-checkout"))


@attack
def make_a_hook_executable(world):
    os.chmod(git(world, "hooks", "sample"), 0o755)
    return "changed"


@attack
def move_git_away(world):
    os.rename(git(world), os.path.join(world.work, "old-git"))
    os.mkdir(git(world))
    return written(git(world, "config"))


@attack
def exchange_git(world):
    os.mkdir("evil-git")
    syscall(316, 276, -100, b"evil-git", -100, os.fsencode(git(world)), ctypes.c_uint(2))
    return "exchanged"


@attack
def write_git_in_capitals(world):
    os.stat(os.path.join(world.work, ".GIT"))  # where it is the same
    return written(os.path.join(world.work, ".GIT", "config"), "a")


@attack
def change_a_protected_file(world):
    return written(os.path.join(world.work, "deep", "er", "state"), "a")


@attack
def move_the_folder_of_a_protected_file(world):
    os.rename(os.path.join(world.work, "deep"), os.path.join(world.work, "shallow"))
    return "moved"


@attack
def make_what_is_missing_and_protected(world):
    os.makedirs(os.path.join(world.work, "missing", "part"))
    return written(os.path.join(world.work, "missing", "part", "file"))
