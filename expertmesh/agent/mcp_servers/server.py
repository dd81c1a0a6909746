"""How is an MCP server started, asked and ended?

One task holds the connection: the SDK's contexts must be left by the task that entered them.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from expertmesh.agent.mcp_servers.config import ServerConfig

MISSING = "--mcp needs the extra mcp: pip install 'expertmesh[mcp]'"
MAX_TOOLS = 100
_MAX_PAGES = 20
_TAIL_BYTES = 2000
_CLOSE_S = 15.0


class McpServerError(Exception):
    """A server that does not start or does not answer."""


@dataclass(frozen=True, kw_only=True)
class McpLimits:
    """How long a server may take."""

    start_s: float = 60.0
    call_s: float = 120.0


@dataclass(frozen=True)
class ToolInfo:
    """A tool, in its server's own words."""

    name: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True)
class ToolAnswer:
    """What a call gave."""

    text: str
    failed: bool


class McpServer:
    """A running server; `close` ends it with all that it has started."""

    def __init__(self, config: ServerConfig, work_dir: Path, limits: McpLimits = McpLimits()):
        self.name = config.name
        self._config = config
        self._folder = work_dir / config.cwd if config.cwd else work_dir
        self._limits = limits
        self._session: Any = None
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._said = b""

    async def start(self) -> list[ToolInfo]:
        """Its tools. Raises McpServerError."""
        ready: asyncio.Future[list[ToolInfo]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(ready))
        try:
            async with asyncio.timeout(self._limits.start_s):
                return await asyncio.shield(ready)
        except TimeoutError:
            ready.cancel()
            await self.close()
            limit = f"in {self._limits.start_s:.0f} s"
            raise McpServerError(
                f"MCP server {self.name} did not start {limit}{self._last()}"
            ) from None
        except BaseException:
            ready.cancel()
            await self.close()
            raise

    async def call(self, tool: str, arguments: dict[str, Any]) -> ToolAnswer:
        """Raises McpServerError and TimeoutError."""
        if self._session is None:
            raise McpServerError(f"MCP server {self.name} has ended{self._last()}")
        try:
            async with asyncio.timeout(self._limits.call_s):
                result = await self._session.call_tool(tool, arguments)
        except TimeoutError:
            raise
        except Exception as error:  # the SDK has many, and the loop must go on after any
            said = str(error) or type(error).__name__
            raise McpServerError(f"MCP server {self.name}: {said}{self._last()}") from None
        return ToolAnswer(_text_of(result), bool(result.is_error))

    async def close(self) -> None:
        """End it; bounded, whatever the server does."""
        if self._task is None:
            return
        self._stop.set()
        if self._session is not None:  # otherwise it waits for an answer that may never come
            await asyncio.wait({self._task}, timeout=_CLOSE_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _live(self, ready: asyncio.Future[list[ToolInfo]]) -> None:
        """From the start to the end of the process."""
        try:
            from mcp.client.session import ClientSession
            from mcp.client.stdio import StdioServerParameters, stdio_client
        except ImportError:
            ready.set_exception(McpServerError(MISSING))
            return
        parameters = StdioServerParameters(
            command=self._config.command,
            args=list(self._config.args),
            env=self._config.env,
            cwd=self._folder,
            encoding_error_handler="replace",
        )
        said, errors = _pipe()
        listener = asyncio.create_task(self._listen(said))
        try:
            with errors:
                async with stdio_client(parameters, errlog=errors) as (incoming, outgoing):
                    async with ClientSession(incoming, outgoing) as session:
                        await session.initialize()
                        tools = await _tools_of(session)
                        if not ready.done():
                            self._session = session
                            ready.set_result(tools)
                            await self._stop.wait()
        except Exception as error:  # an exception group, often
            if not ready.done():
                await asyncio.wait({listener}, timeout=0.2)
                ready.set_exception(
                    McpServerError(
                        f"MCP server {self.name} did not start: {_first(error)}{self._last()}"
                    )
                )
        finally:
            self._session = None
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self, pipe: BinaryIO) -> None:
        """Keep the end of what it writes to stderr, which must not mix with the agent's own."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            while piece := await reader.read(4096):
                self._said = (self._said + piece)[-_TAIL_BYTES:]
        finally:
            transport.close()

    def _last(self) -> str:
        lines = self._said.decode("utf-8", "replace").strip().splitlines()
        return f"; it said: {lines[-1][-300:]}" if lines else ""


def _pipe() -> tuple[BinaryIO, TextIO]:
    """(end to read from, end to write to)."""
    read_end, write_end = os.pipe()
    return os.fdopen(read_end, "rb"), os.fdopen(write_end, "w")


async def _tools_of(session: Any) -> list[ToolInfo]:
    from mcp.types import PaginatedRequestParams

    found: list[ToolInfo] = []
    cursor = None
    for _ in range(_MAX_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        found += [
            ToolInfo(one.name, one.description or "", dict(one.input_schema)) for one in page.tools
        ]
        cursor = page.next_cursor
        if not cursor or len(found) >= MAX_TOOLS:
            break
    return found[:MAX_TOOLS]


def _text_of(result: Any) -> str:
    """Text as it is; of what is none, what it is."""
    parts = [_text_of_block(block) for block in result.content]
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    return "\n".join(parts)


def _text_of_block(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return str(text) if text is not None else f"[resource: {block.resource.uri}]"
    if block.type == "resource_link":
        return f"[resource: {block.uri}]"
    return f"[{block.type}: {getattr(block, 'mime_type', 'unknown type')}]"


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
