"""Which servers a configuration names, and what is said of a bad one."""

import json
from pathlib import Path
from typing import Any

import pytest

from expertmesh.agent.mcp_servers.config import ServerConfig, read_servers


def read(tmp_path: Path, document: Any) -> list[ServerConfig]:
    path = tmp_path / "mcp.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_servers(path)


def test_servers_are_read_as_other_clients_write_them(tmp_path: Path) -> None:
    servers = {
        "files": {"command": "files-server", "args": ["--read"], "env": {"A": "b"}, "cwd": "x"},
        "plain": {"command": "plain", "type": "stdio", "disabled": False},
        "off": {"command": "off", "disabled": True},
    }
    assert read(tmp_path, {"mcpServers": servers}) == [
        ServerConfig("files", "files-server", ("--read",), {"A": "b"}, "x"),
        ServerConfig("plain", "plain"),
    ]


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ({"a b": {"command": "x"}}, "a b: a name has"),
        ({"a": 5}, "mcpServers.a: must be an object"),
        ({"a": {}}, "a.command"),
        ({"a": {"command": ""}}, "a.command"),
        ({"a": {"command": "x", "args": "y"}}, "a.args"),
        ({"a": {"command": "x", "args": [1]}}, "a.args"),
        ({"a": {"command": "x", "env": {"K": 1}}}, "a.env"),
        ({"a": {"command": "x", "cwd": 1}}, "a.cwd"),
        ({"a": {"command": "x\0"}}, "zero byte"),
        ({"a": {"url": "http://a.test/mcp"}}, "only servers that are started here"),
        ({"a": {"command": "x", "type": "http"}}, "only servers that are started here"),
        ({"a": {"command": "x", "alwaysAllow": []}}, "a.alwaysAllow: there is no such field"),
        ({f"a{n}": {"command": "x"} for n in range(17)}, "at most 16"),
    ],
)
def test_a_bad_entry_names_its_field(tmp_path: Path, servers: Any, words: str) -> None:
    with pytest.raises(ValueError, match="--mcp .*" + words):
        read(tmp_path, {"mcpServers": servers})


@pytest.mark.parametrize("document", ["{", "[]", "{}", '{"mcpServers": []}', "[" * 100_000])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, document: str) -> None:
    with pytest.raises(ValueError, match="--mcp"):
        read(tmp_path, document)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.json: No such file"):
        read_servers(tmp_path / "gone.json")
