"""How the browser is started: what it can see, and as whom."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from expertmesh.agent.web import browser_launch
from expertmesh.agent.web.browser_launch import LaunchError, find_browser, find_bubblewrap, launched
from expertmesh.agent.web.browser_page import Browser, BrowserLimits
from expertmesh.agent.web.chromium_flags import chromium_argv
from expertmesh.agent.web.guard import Guard

CONTAINED = find_bubblewrap(Path("/nowhere"))
URL = "http://a.test/"

needs_bubblewrap = pytest.mark.skipif(
    CONTAINED is None, reason="bubblewrap is missing or cannot make namespaces here"
)


def fake_browser(folder: Path, script: str) -> str:
    """A program that stands in for chromium, where any user can run it."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    path = folder / "chromium"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def command_lines() -> Iterator[list[str]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            yield process.cmdline()


def test_the_flags_leave_no_way_but_the_proxy() -> None:
    argv = chromium_argv("chromium", "/p", 8123, 5000, URL)
    assert "--proxy-server=http://127.0.0.1:8123" in argv
    assert "--proxy-bypass-list=<-loopback>" in argv
    assert "--disable-quic" in argv
    assert "--webrtc-ip-handling-policy=disable_non_proxied_udp" in argv
    assert "--no-sandbox" not in argv
    assert argv[-1] == URL


@pytest.mark.parametrize("bubblewrap", [None, pytest.param(CONTAINED, marks=needs_bubblewrap)])
async def test_it_has_no_secrets_and_is_not_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bubblewrap: str | None
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    program = fake_browser(tmp_path, "id -u; env; cat $HOME/Default/* $HOME/profile/Default/*")
    page = await Browser(program, Guard(), bubblewrap).load(URL)
    uid, *rest = page.html.splitlines()
    assert uid == str(os.geteuid() or browser_launch.NOBODY)
    assert "secret" not in page.html
    assert any("network_prediction_options" in line for line in rest)


@needs_bubblewrap
async def test_contained_it_sees_programs_and_nothing_else(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    script = f"cat {secret} /etc/passwd; ls / /etc /home /root; cat /proc/net/dev; ls /proc"
    page = await Browser(fake_browser(tmp_path / "program", script), Guard(), CONTAINED).load(URL)
    assert "secret" not in page.html
    assert "root:" not in page.html
    interfaces = [line.split(":")[0].strip() for line in page.html.splitlines() if ": " in line]
    assert interfaces == ["lo"]
    numbers = [word for word in page.html.split() if word.isdigit() and len(word) < 8]
    assert str(os.getpid()) not in numbers


@pytest.mark.parametrize("bubblewrap", [None, pytest.param(CONTAINED, marks=needs_bubblewrap)])
async def test_children_that_leave_the_family_end_with_it(
    tmp_path: Path, bubblewrap: str | None
) -> None:
    leave = '(setsid sh -c "sleep 88; : $flag" &)'
    script = f'for flag; do case $flag in --user-data-dir=*) {leave} ;; esac; done; echo "<p>done"'
    page = await Browser(fake_browser(tmp_path, script), Guard(), bubblewrap).load(URL)
    assert "done" in page.html
    assert not [words for words in command_lines() if "88" in words]


@pytest.mark.parametrize("bubblewrap", [None, pytest.param(CONTAINED, marks=needs_bubblewrap)])
async def test_a_page_has_limits(tmp_path: Path, bubblewrap: str | None) -> None:
    quick = BrowserLimits(wall_s=0.5, dom_bytes=1000)
    hangs = fake_browser(tmp_path / "a", "sleep 60")
    with pytest.raises(TimeoutError):
        await Browser(hangs, Guard(), bubblewrap, quick).load(URL)
    floods = fake_browser(tmp_path / "b", "yes")
    page = await Browser(floods, Guard(), bubblewrap, BrowserLimits(dom_bytes=1000)).load(URL)
    assert (page.cut, len(page.html)) == (True, 1000)
    silent = fake_browser(tmp_path / "c", "echo no usable sandbox >&2; exit 1")
    page = await Browser(silent, Guard(), bubblewrap).load(URL)
    assert "no usable sandbox" in page.problem


async def test_a_page_that_takes_too_much_memory_ends(tmp_path: Path) -> None:
    program = fake_browser(tmp_path, "sleep 60")
    page = await Browser(program, Guard(), None, BrowserLimits(memory_bytes=1)).load(URL)
    assert page.problem == "the page took too much memory"


async def test_a_browser_that_is_not_there_says_so() -> None:
    with pytest.raises(LaunchError, match="did not start"):
        async with launched("/nowhere/chromium", None, 1000, URL):
            pass


@needs_bubblewrap
async def test_a_container_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    broken = fake_browser(tmp_path, "echo no namespaces >&2; exit 1")
    with pytest.raises(LaunchError, match="no namespaces"):
        await Browser(broken, Guard(), broken).load(URL)


def test_no_browser_and_no_bubblewrap_are_found_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    work_dir = tmp_path / "work"
    assert find_browser(work_dir) is None
    assert find_bubblewrap(work_dir) is None
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert find_bubblewrap(work_dir) is None


def test_programs_in_the_work_folder_are_not_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_browser(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser(tmp_path / "other") == str(tmp_path / "chromium")
    assert find_browser(tmp_path) is None
    (tmp_path / "chromium").rename(tmp_path / "bwrap")
    assert find_bubblewrap(tmp_path) is None
