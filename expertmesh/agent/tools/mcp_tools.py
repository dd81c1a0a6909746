"""Tools of MCP servers, under names that begin with `mcp_` and the server's."""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from expertmesh.agent.mcp_servers.config import ServerConfig
from expertmesh.agent.mcp_servers.confirmation import AskServer, Confirmations, question_of
from expertmesh.agent.mcp_servers.server import (
    McpLimits,
    McpServer,
    McpServerError,
    ToolInfo,
)
from expertmesh.agent.tools.tool import Effect, Result, Source, Status
from expertmesh.agent.web.marking import marked, visible

_MAX_NAME = 64
_MAX_DESCRIPTION_CHARS = 1500
_MAX_SCHEMA_CHARS = 20_000
_MAX_TEXT_CHARS = 1_000_000
_USUAL = McpLimits()
_ANYTHING: dict[str, Any] = {"type": "object"}


class McpTool:
    """One tool of one server. It runs outside the sandbox, so every call is one that runs things:
    what a server says of itself (that a tool only reads) is no reason to ask less."""

    effect = Effect.RUNS

    def __init__(self, server: McpServer, info: ToolInfo):
        self._server = server
        self._info = info
        self.name = tool_name(server.name, info.name)

    @property
    def description(self) -> str:
        text = visible(self._info.description).strip()[:_MAX_DESCRIPTION_CHARS]
        return f"[MCP server {self._server.name}, outside the sandbox] {text}"

    @property
    def parameters(self) -> dict[str, Any]:
        schema = self._info.schema
        usable = schema.get("type") == "object" and len(json.dumps(schema)) <= _MAX_SCHEMA_CHARS
        return schema if usable else _ANYTHING

    async def call(self, arguments: dict[str, Any]) -> Result:
        try:
            answer = await self._server.call(self._info.name, arguments)
        except TimeoutError:
            return Result(Status.TIMED_OUT, f"{self.name} took too long")
        except McpServerError as error:
            return Result(Status.FAILED, visible(str(error)))
        text = answer.text[:_MAX_TEXT_CHARS]
        shown = marked(text, f"the MCP server {self._server.name}")
        if answer.failed:
            return Result(Status.FAILED, shown)
        place = f"mcp:{self._server.name}/{visible(self._info.name)[:100]}"
        return Result(Status.OK, shown, (Source.of(place, text),))


def tool_name(server: str, tool: str) -> str:
    """Unique, and of the characters and the length that servers of models allow."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", tool)
    name = f"mcp_{server}_{plain}"
    if plain == tool and len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(tool.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9]}_{digest}"


@asynccontextmanager
async def mcp_tools(
    servers: Sequence[ServerConfig],
    work_dir: Path,
    confirmations: Confirmations,
    ask: AskServer | None,
    limits: McpLimits = _USUAL,
) -> AsyncIterator[list[McpTool]]:
    """The tools of these servers, each confirmed before it is started; all end with the context.

    Raises NotConfirmedError, McpServerError, ValueError and OSError.
    """
    running: list[McpServer] = []
    try:
        tools: dict[str, McpTool] = {}
        for config in servers:
            await confirmations.require(question_of(config, work_dir), ask)
            server = McpServer(config, work_dir, limits)
            running.append(server)
            for info in await server.start():
                tool = McpTool(server, info)
                tools.setdefault(tool.name, tool)
        yield list(tools.values())
    finally:
        for server in reversed(running):
            await server.close()
