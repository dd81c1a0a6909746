"""What a browser can see, as whom it runs, what it may take, and that nothing of it is left."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from expertmesh.agent.sandbox.folders.identity import NOBODY
from expertmesh.agent.web.browser.chromium_flags import chromium_argv
from expertmesh.agent.web.browser.launch import LaunchError
from expertmesh.agent.web.browser.page import Browser, BrowserLimits
from expertmesh.agent.web.browser.programs import find_browser, find_bubblewrap
from expertmesh.agent.web.guard import Guard
from tests.support.expertmesh.fake_chromium import fake_chromium
from tests.support.expertmesh.sandbox.users import some_user
from tests.support.expertmesh.sandbox.working import open_folder

BUBBLEWRAP = find_bubblewrap()
URL = "http://a.test/"
needs_bubblewrap = pytest.mark.skipif(
    BUBBLEWRAP is None, reason="bubblewrap is missing or cannot make namespaces here"
)
ways = pytest.mark.parametrize(
    "bubblewrap",
    [pytest.param(None, id="flags"), pytest.param(BUBBLEWRAP, id="bwrap", marks=needs_bubblewrap)],
)


def browser(program: str, bubblewrap: str | None, limits: BrowserLimits | None = None) -> Browser:
    return Browser(program, Guard(), bubblewrap, limits or BrowserLimits())


async def html_of(program: str, bubblewrap: str | None) -> str:
    page = await browser(program, bubblewrap).load(URL)
    assert page.visited.problem == ""
    assert page.visited.url == URL
    return page.visited.html


def command_lines() -> Iterator[list[str]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            yield process.cmdline()


def runs(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).cmdline())
    return False


def test_the_flags_leave_no_way_but_the_proxy() -> None:
    argv = chromium_argv("chromium", "/p", 8123)
    assert "--proxy-server=http://127.0.0.1:8123" in argv
    assert "--proxy-bypass-list=<-loopback>" in argv
    assert "--disable-quic" in argv
    assert "--webrtc-ip-handling-policy=disable_non_proxied_udp" in argv
    assert "--remote-debugging-pipe" in argv
    assert not any("--remote-debugging-port" in word for word in argv)
    assert "--no-sandbox" not in argv


@ways
async def test_it_has_no_secrets_and_is_not_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bubblewrap: str | None
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-key-of-user")
    body = """
    told = open(os.path.expanduser(sys.argv[-3].split("=")[1] + "/Default/Preferences")).read()
    return f"{os.getuid()} {dict(os.environ)} {told} {os.listdir('/proc/self/fd')}"
    """
    html = await html_of(fake_chromium(tmp_path, body), bubblewrap)
    assert html.startswith(f"{os.geteuid() or NOBODY.uid} ")
    assert "sk-key-of-user" not in html
    assert '{"net": {"network_prediction_options": 2}}' in html
    assert html.endswith("['0', '1', '2', '3', '4', '5']")  # 5 reads the folder


@needs_bubblewrap
async def test_contained_it_sees_programs_and_nothing_else(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("TOP SECRET")
    body = f"""
    seen = []
    for path in ({str(secret)!r}, "/etc/passwd", "/etc/shadow", "/root", "/home"):
        try:
            seen.append(open(path).read() if os.path.isfile(path) else str(os.listdir(path)))
        except OSError as error:
            seen.append(error.strerror)
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    networks = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
    return json.dumps([seen, max(numbers) < 100, networks])
    """
    program = fake_chromium(tmp_path / "program", body)
    gone = "No such file or directory"
    assert await html_of(program, BUBBLEWRAP) == (
        f'[["{gone}", "{gone}", "{gone}", "{gone}", "[\'profile\']"], true, ["lo"]]'
    )


@ways
async def test_children_that_leave_the_family_end_with_it(
    tmp_path: Path, bubblewrap: str | None
) -> None:
    seconds = str(10**6 + secrets.randbits(30))  # others may run the same test
    body = f"""
    subprocess.Popen(["setsid", "sleep", "{seconds}"])
    subprocess.Popen(["sh", "-c", "setsid sleep {seconds} &"]).wait()
    return "done"
    """
    program = fake_chromium(tmp_path, body)
    assert await html_of(program, bubblewrap) == "done"
    assert not [words for words in command_lines() if seconds in words or program in words]


@ways
async def test_a_page_has_a_time_limit(tmp_path: Path, bubblewrap: str | None) -> None:
    program = fake_chromium(tmp_path, "time.sleep(8643)")
    with pytest.raises(TimeoutError):
        await browser(program, bubblewrap, BrowserLimits(wall_s=0.5)).load(URL)
    assert not [words for words in command_lines() if program in words]


async def test_what_bubblewrap_was_about_to_start_ends_with_it() -> None:
    """Its first child is there before it can do anything by itself."""
    with open_folder(some_user()) as folder:
        folder.chmod(0o777)
        bubblewrap = folder / "bwrap"
        bubblewrap.write_text(
            f"#!/bin/sh\ncd {folder}; sleep 8644 & echo $! >new; mv new child; wait\n"
        )
        bubblewrap.chmod(0o755)
        loading = asyncio.create_task(browser("/nowhere/chromium", str(bubblewrap)).load(URL))
        async with asyncio.timeout(20):
            while not (folder / "child").exists():
                await asyncio.sleep(0.01)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        child = int((folder / "child").read_text())
        async with asyncio.timeout(20):
            while runs(child):
                await asyncio.sleep(0.01)


@ways
async def test_a_browser_that_ends_says_its_last_words(
    tmp_path: Path, bubblewrap: str | None
) -> None:
    program = fake_chromium(tmp_path, "sys.exit('no usable sandbox')")
    page = await browser(program, bubblewrap).load(URL)
    assert page.visited.problem == "the browser has ended: no usable sandbox"


async def test_a_page_that_takes_too_much_memory_ends(tmp_path: Path) -> None:
    program = fake_chromium(tmp_path, "time.sleep(60)")
    page = await browser(program, None, BrowserLimits(memory_bytes=1)).load(URL)
    assert page.visited.problem == "the page took too much memory"


@ways
async def test_a_browser_that_is_not_there_says_so(bubblewrap: str | None) -> None:
    page = await browser("/nowhere/chromium", bubblewrap).load(URL)
    assert "No such file or directory" in page.visited.problem


@needs_bubblewrap
async def test_a_container_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    chromium = fake_chromium(tmp_path, "return ''")
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho no namespaces >&2; exit 1\n")
    broken.chmod(0o755)
    with pytest.raises(LaunchError, match="no namespaces"):
        await browser(chromium, str(broken)).load(URL)


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
    fake_chromium(tmp_path, "return ''")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser(tmp_path / "other") == str(tmp_path / "chromium")
    assert find_browser(tmp_path) is None
    (tmp_path / "chromium").rename(tmp_path / "bwrap")
    assert find_bubblewrap(tmp_path) is None
