"""Which MCP servers does a file name, and is it one that can be started?

{"mcpServers": {"files": {"command": "server", "args": ["--read"], "env": {"KEY": "..."}}}}
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_SERVERS = 16
_NAME = re.compile(r"[A-Za-z0-9_-]{1,24}")
_KEYS = ("command", "args", "env", "cwd", "type", "disabled")


@dataclass(frozen=True)
class ServerConfig:
    """How one server is started."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    """Besides PATH, HOME and the like; of the agent's own environment it gets nothing else."""
    cwd: str | None = None


def read_servers(path: Path) -> list[ServerConfig]:
    """The servers that are not disabled. Raises ValueError naming the file and the field."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--mcp {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--mcp {path}: not JSON: {error}") from None
    servers = document.get("mcpServers") if isinstance(document, dict) else None
    if not isinstance(servers, dict):
        raise ValueError(f'--mcp {path}: it must have an object "mcpServers"')
    if len(servers) > MAX_SERVERS:
        raise ValueError(f"--mcp {path}: {len(servers)} servers; at most {MAX_SERVERS}")
    try:
        found = [_server(name, entry) for name, entry in servers.items()]
    except ValueError as error:
        raise ValueError(f"--mcp {path}: mcpServers.{error}") from None
    return [one for one in found if one is not None]


def _server(name: str, entry: Any) -> ServerConfig | None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:40]}: a name has 1 to 24 letters, digits, _ and -")
    if not isinstance(entry, dict):
        raise ValueError(f"{name}: must be an object")
    unknown = [key for key in entry if key not in _KEYS]
    if "url" in unknown or entry.get("type", "stdio") != "stdio":
        raise ValueError(f"{name}: only servers that are started here (type stdio) are supported")
    if unknown:
        raise ValueError(f"{name}.{unknown[0]}: there is no such field; known: {', '.join(_KEYS)}")
    if entry.get("disabled") is True:
        return None
    command, cwd = entry.get("command"), entry.get("cwd")
    args, env = entry.get("args", []), entry.get("env", {})
    if not (isinstance(command, str) and command):
        raise ValueError(f"{name}.command: must be the name or path of a program")
    if not (isinstance(args, list) and all(isinstance(one, str) for one in args)):
        raise ValueError(f"{name}.args: must be a list of strings")
    if not (isinstance(env, dict) and all(isinstance(one, str) for one in env.values())):
        raise ValueError(f"{name}.env: must be an object of strings")
    if not (cwd is None or isinstance(cwd, str)):
        raise ValueError(f"{name}.cwd: must be the path of a folder")
    if any("\0" in text for text in (command, cwd or "", *args, *env, *env.values())):
        raise ValueError(f"{name}: there is a zero byte in it")
    return ServerConfig(name, command, tuple(args), dict(env), cwd)
