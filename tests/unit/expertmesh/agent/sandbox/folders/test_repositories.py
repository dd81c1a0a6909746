"""Everything that makes git run programs is found, in repositories inside repositories too."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.folders import repositories
from expertmesh.agent.sandbox.folders.repositories import paths_of_git
from expertmesh.agent.sandbox.policy import Sandbox
from tests.support.expertmesh.sandbox.runner import make
from tests.support.expertmesh.sandbox.users import some_user


def test_a_folder_that_is_no_repository_must_not_become_one(tmp_path: Path) -> None:
    assert paths_of_git(tmp_path) == [tmp_path / ".git"]


def test_repositories_inside_are_found_by_their_files_and_folders(tmp_path: Path) -> None:
    for folder in (".git/hooks", "a/b/.git/objects/.git", "c"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "c" / ".git").write_text("gitdir: ../.git/modules/c")
    (tmp_path / "link").symlink_to("/usr")
    assert set(paths_of_git(tmp_path)) == {
        tmp_path / ".git",
        tmp_path / "a" / "b" / ".git",
        tmp_path / "c" / ".git",
    }


def test_submodules_that_were_not_fetched_are_found(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "vendor" / "lib").mkdir(parents=True)
    (tmp_path / "link").symlink_to("/usr")
    (tmp_path / ".gitmodules").write_text(
        '[submodule "lib"]\n\tpath = vendor/lib\n\turl = https://example.com/\n'
        "\tpath = ../outside\n\tpath=/etc\n\tpath = link\n\tpath = .\n\tpath = missing\n"
    )
    assert set(paths_of_git(tmp_path)) == {tmp_path / ".git", tmp_path / "vendor/lib/.git"}


def test_the_search_ends_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(repositories, "MOST_FOLDERS", 3)
    for number in range(5):
        (tmp_path / str(number)).mkdir()
    with caplog.at_level(logging.WARNING):
        paths_of_git(tmp_path)
    assert "more folders than are searched" in caplog.text


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
async def test_a_folder_does_not_become_a_bare_repository(sandbox: Sandbox, work: Path) -> None:
    outcome = await sandbox.run(["git", "init", "-q", "--bare", "."])
    assert outcome.ok, outcome.stderr
    assert not (work / "HEAD").exists()
    assert (work / "HEAD.made-in-sandbox").exists()


ATTACK = """
mkdir -p evil/objects evil/refs; echo 'ref: refs/heads/main' > evil/HEAD
for line in '[core]' 'repositoryformatversion = 0' "worktree = $PWD/sub" \
    "fsmonitor = \\"touch $PWD/ran #\\""; do echo "$line"; done > evil/config
rm -f sub/.git; echo "gitdir: $PWD/evil" > sub/.git
cp -r evil/. . ; cp -r evil .git
echo done
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
async def test_no_command_makes_git_run_a_program_outside(sandbox: Sandbox, work: Path) -> None:
    """By way of a submodule, and of a folder that looks like a bare repository."""
    prepare(work)
    # As a new one: what is protected is found at the start.
    kind = "bubblewrap" if sandbox.mechanism.startswith("bubblewrap") else "landlock"
    outcome = await make(kind, work).run(["sh", "-c", ATTACK])
    assert outcome.stdout == "done\n"
    assert ran(work) is False


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_without_a_sandbox_the_same_command_does(work: Path) -> None:
    prepare(work)
    subprocess.run(["sh", "-c", ATTACK], cwd=work, check=True)
    assert ran(work) is True


def prepare(work: Path) -> None:
    names = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "safe.directory=*"]
    local = ["-c", "protocol.file.allow=always"]

    def git(folder: Path, *arguments: str) -> None:
        subprocess.run(["git", *names, *local, *arguments], cwd=folder, check=True)

    lib = work / "lib"
    lib.mkdir()
    git(lib, "init", "-q")
    git(lib, "commit", "-q", "--allow-empty", "-m", "empty")
    git(work, "init", "-q")
    git(work, "submodule", "--quiet", "add", str(lib), "sub")
    git(work, "commit", "-qm", "a submodule")
    some_user().own(work)


def ran(work: Path) -> bool:
    """Whether asking for the status runs what the command has left."""
    subprocess.run(
        ["git", "-c", "safe.directory=*", "status"], cwd=work, check=True, capture_output=True
    )
    return (work / "ran").exists()
