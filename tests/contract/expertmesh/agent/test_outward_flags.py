"""The flags of `expertmesh agent` for tools that reach beyond the folder, from model to result."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from expertmesh.agent import outward
from expertmesh.commands.agent import run as agent_run
from tests.support.expertmesh.agent_scripts import Scripts
from tests.support.expertmesh.command import run_command
from tests.support.expertmesh.plain_sandbox import PlainSandbox
from tests.support.gateway.answers import invoke
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness

Run = Callable[..., subprocess.CompletedProcess]
TEXT = "A rotor of 120 metres gives 3.4 MW of power."


class Pages(BaseHTTPRequestHandler):
    """One page, and a search engine that finds it."""

    def do_GET(self) -> None:
        hit = {"url": f"http://{self.headers['Host']}/", "title": "Turbines", "content": TEXT}
        is_search = self.path.startswith("/search?")
        body = json.dumps({"results": [hit]}) if is_search else f"<p>{TEXT}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if is_search else "text/html")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    """Its HOST:PORT."""
    server = HTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(gateway: Harness, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(agent_run, "choose_sandbox", lambda folder, *_, **__: PlainSandbox(folder))
    monkeypatch.setattr(outward, "find_browser", lambda work_dir: None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    server = ("--base-url", gateway.base_url, "--dir", str(work))
    return lambda *arguments: run_command("agent", *arguments, *server)


def test_without_a_flag_there_is_no_such_tool(gateway: Harness, scripts: Scripts, run: Run) -> None:
    gateway.script(
        in_turn(scripts.calls(invoke("shell", command="ls")), scripts.final("I have no web."))
    )
    told = json.loads(run("Look it up", "--approve", "all", "--json").stdout)
    start = json.loads(Path(told["trace"]).read_text().splitlines()[0])
    assert not {"fetch", "browser", "web_search", "retriever"} & set(start["tools"])


def test_search_and_fetch_find_a_page_that_the_answer_cites(
    gateway: Harness, scripts: Scripts, run: Run, site: str
) -> None:
    gateway.script(
        in_turn(
            scripts.calls(invoke("web_search", query="power of turbines")),
            scripts.calls(invoke("fetch", url=f"http://{site}/")),
            scripts.final("3.4 MW [2]."),
        )
    )
    done = run("How much?", "--search", f"searxng=http://{site}", "--allow-host", site, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["cited"]) == (0, [2])
    assert [one["place"] for one in told["sources"]] == [f"http://{site}/"] * 2
    assert told["sources"][1]["excerpt"] == TEXT


def test_a_host_that_is_not_allowed_is_refused(
    gateway: Harness, scripts: Scripts, run: Run, site: str
) -> None:
    gateway.script(
        in_turn(scripts.calls(invoke("fetch", url=f"http://{site}/")), scripts.final("no"))
    )
    done = run("How much?", "--web")
    assert (done.returncode, done.stdout) == (0, "no\n")
    assert "  refused 0." in done.stderr
    assert "127.0.0.1 is refused (loopback)" in done.stderr


def test_after_a_page_nothing_is_changed_without_a_question(
    gateway: Harness, scripts: Scripts, run: Run, site: str, work: Path
) -> None:
    write = invoke("file_editor", action="write", file_path="a.txt", content="x")
    gateway.script(
        in_turn(scripts.calls(invoke("fetch", url=f"http://{site}/")), scripts.calls(write))
    )
    done = run("Read it", "--allow-host", site, "--approve", "all")
    assert done.returncode == 6
    assert "a page from the web was read before it" in done.stderr
    assert list(work.iterdir()) == []


def test_passages_of_a_folder_are_cited(
    gateway: Harness, scripts: Scripts, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "power.md").write_text(f"# Power\n\n{TEXT}\n")
    gateway.script(
        in_turn(scripts.calls(invoke("retriever", query="rotor")), scripts.final("3.4 MW [1]."))
    )
    done = run("How much?", "--retrieve", str(tmp_path / "docs"), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["cited"]) == (0, [1])
    assert [one["place"] for one in told["sources"]] == ["power.md:1-3"]


def test_an_mcp_server_is_not_started_where_nobody_can_be_asked(run: Run, tmp_path: Path) -> None:
    server = {"command": sys.executable, "args": ["-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"a": server}}))
    done = run("do it", "--mcp", str(tmp_path / "mcp.json"))
    assert (done.returncode, done.stdout) == (6, "")
    assert "was not confirmed yet" in done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--search", "google"), "--search google: write searxng=URL, brave or tavily"),
        (("--allow-host", "http://a"), "--allow-host http://a: "),
        (("--retrieve", "/no/such"), "--retrieve /no/such: there is no such folder"),
        (("--mcp", "/no/such"), "--mcp /no/such: No such file"),
    ],
)
def test_a_bad_flag_is_named(run: Run, flags: tuple[str, str], words: str) -> None:
    done = run("do it", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.split())
