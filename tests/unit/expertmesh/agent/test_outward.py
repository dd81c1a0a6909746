"""Which tools the flags give."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from expertmesh.agent import outward
from expertmesh.agent.mcp_servers.confirmation import NotConfirmedError
from expertmesh.agent.outward import Outward, outward_tools
from expertmesh.agent.tools.registry import Registry
from expertmesh.agent.tools.tool import Status


async def names(
    tmp_path: Path, environment: dict[str, str] | None = None, **flags: Any
) -> list[str]:
    async with outward_tools(
        Outward(**flags),
        work_dir=tmp_path,
        state=tmp_path / "state",
        ask_server=None,
        environment=environment or {},
    ) as tools:
        return Registry(tools).names


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outward, "find_browser", lambda work_dir: "/usr/bin/chromium")


async def test_without_a_flag_nothing_leads_outward(tmp_path: Path) -> None:
    assert await names(tmp_path) == []


@pytest.mark.parametrize(
    ("flags", "offered"),
    [
        ({"web": True}, ["fetch", "browser"]),
        ({"allow_hosts": ("127.0.0.1:80",)}, ["fetch", "browser"]),
        ({"search": "searxng=http://127.0.0.1:8888"}, ["web_search", "fetch", "browser"]),
        ({"retrieve": Path("docs")}, ["retriever"]),
    ],
)
async def test_each_flag_gives_its_tools(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    browser: None,
    flags: dict[str, Any],
    offered: list[str],
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert await names(tmp_path, **flags) == offered


async def test_without_a_browser_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outward, "find_browser", lambda work_dir: None)
    assert await names(tmp_path, web=True) == ["fetch"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"search": "brave"}, "--search brave: its key is missing"),
        ({"allow_hosts": ("http://a",)}, "--allow-host http://a"),
        ({"retrieve": Path("nowhere")}, "--retrieve nowhere: there is no such folder"),
        ({"mcp": Path("nowhere")}, "--mcp nowhere: No such file"),
    ],
)
async def test_a_bad_flag_is_named(tmp_path: Path, flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        await names(tmp_path, **flags)


async def test_a_search_engines_key_comes_from_the_environment(tmp_path: Path) -> None:
    offered = await names(tmp_path, {"BRAVE_API_KEY": "k"}, search="brave")
    assert "web_search" in offered


async def test_an_mcp_server_is_not_started_unasked(tmp_path: Path) -> None:
    config = tmp_path / "mcp.json"
    server = {"command": sys.executable, "args": ["-c", "pass"]}
    config.write_text(json.dumps({"mcpServers": {"a": server}}))
    with pytest.raises(NotConfirmedError, match="was not confirmed yet"):
        await names(tmp_path, mcp=config)


async def test_a_folders_index_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("turbine")
    for _ in range(2):
        async with outward_tools(
            Outward(retrieve=tmp_path / "docs"),
            work_dir=tmp_path,
            state=tmp_path / "state",
            ask_server=None,
        ) as (retriever,):
            assert (await retriever.call({"query": "turbine"})).status is Status.OK
    assert len(list((tmp_path / "state" / "retrieval").glob("*.db"))) == 1
