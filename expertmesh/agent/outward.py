"""Which tools reach beyond the work folder? Only those that the user asks for by flags."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from expertmesh.agent.mcp_servers.config import read_servers
from expertmesh.agent.mcp_servers.confirmation import AskServer, Confirmations
from expertmesh.agent.tools.browser import BrowserTool
from expertmesh.agent.tools.fetch import Fetch
from expertmesh.agent.tools.mcp_tools import mcp_tools
from expertmesh.agent.tools.retriever import Retriever
from expertmesh.agent.tools.tool import Tool
from expertmesh.agent.tools.web_search import WebSearch
from expertmesh.agent.web.browser.page import Browser
from expertmesh.agent.web.browser.programs import find_browser, find_bubblewrap
from expertmesh.agent.web.fetching import Fetcher
from expertmesh.agent.web.guard import Guard, parse_allowed
from expertmesh.agent.web.search_backends import search_backend


@dataclass(frozen=True, kw_only=True)
class Outward:
    """What the flags say. Nothing of it: no tool."""

    web: bool = False
    """Pages can be read. What the model knows can leave by the addresses that it asks for, so this
    is never so by itself."""
    search: str | None = None
    """A search engine, as in `search_backends.search_backend`; pages can then be read, too."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts that may be reached although they are not public; implies `web`."""
    retrieve: Path | None = None
    """A folder of texts."""
    mcp: Path | None = None
    """A file that names MCP servers."""

    @property
    def reads_web(self) -> bool:
        return self.web or self.search is not None or bool(self.allow_hosts)


def tools_without_servers(
    wanted: Outward, *, work_dir: Path, state: Path, environment: Mapping[str, str] = os.environ
) -> list[Tool]:
    """All but those of MCP servers.

    `state`: a folder of the user's own, for the index. Raises ValueError naming the flag.
    """
    tools: list[Tool] = []
    if wanted.search is not None:
        tools.append(WebSearch(search_backend(wanted.search, environment)))
    if wanted.reads_web:
        tools += _web_tools(wanted.allow_hosts, work_dir)
    if wanted.retrieve is not None:
        tools.append(_retriever(wanted.retrieve, state))
    return tools


@asynccontextmanager
async def outward_tools(
    wanted: Outward,
    *,
    work_dir: Path,
    state: Path,
    ask_server: AskServer | None,
    environment: Mapping[str, str] = os.environ,
) -> AsyncIterator[list[Tool]]:
    """All of them; MCP servers run as long as the context.

    `state` is for what was confirmed, too. Raises ValueError naming the flag, NotConfirmedError,
    McpServerError and OSError.
    """
    tools = tools_without_servers(wanted, work_dir=work_dir, state=state, environment=environment)
    if wanted.mcp is None:
        yield tools
        return
    servers = read_servers(wanted.mcp)
    kept = Confirmations(state / "mcp-confirmed.json")
    async with mcp_tools(servers, work_dir, kept, ask_server) as of_servers:
        yield [*tools, *of_servers]


def _web_tools(allow_hosts: tuple[str, ...], work_dir: Path) -> list[Tool]:
    """The browser only where there is one."""
    guard = Guard(parse_allowed(allow_hosts))
    tools: list[Tool] = [Fetch(Fetcher(guard))]
    executable = find_browser(work_dir)
    if executable is not None:
        browser = Browser(executable, guard, find_bubblewrap(work_dir))
        tools.append(BrowserTool(browser, guard))
    return tools


def _retriever(folder: Path, state: Path) -> Retriever:
    if not folder.is_dir():
        raise ValueError(f"--retrieve {folder}: there is no such folder")
    root = folder.resolve()
    name = sha256(os.fsencode(root)).hexdigest()[:16]
    return Retriever(root, state / "retrieval" / f"{name}.db")
