"""docs/limits.md and the limits in the code are the same list with the same numbers."""

import ast
import dataclasses
import importlib
import re
from typing import Any

import pytest

from attention_svc.config import AttentionConfig
from gateway.config import GatewayConfig
from gateway.limits import Limits
from rpc.process.flags import env_name
from tests.support.places import ROOT
from tests.support.syntax import parse

PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*)\| ([^|]*)\|$", re.MULTILINE)
SECTION = re.compile(r"^## .*: `([\w/]+\.py)`$", re.MULTILINE)
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "bytes": 1, "s": 1}

CONFIGS: dict[str, type[Any]] = {
    "gateway/limits.py": Limits,
    "gateway/config.py": GatewayConfig,
    "attention_svc/config.py": AttentionConfig,
}
NO_LIMITS = {
    "PROTOCOL_MAJOR",
    "PROTOCOL_MINOR",
    "POOL_PATIENCE_MS",
    "PATIENCE_MS",
    "BLOCK_SIZE",
    "GREEDY_BELOW",
}
"""Numbers of these files that bound nothing."""


def number(text: str) -> float:
    """`16 MiB` -> 16777216."""
    value, _, unit = text.strip().replace(",", "").partition(" ")
    return float(value) * UNITS[unit or "bytes"]


def rows(path: str) -> dict[str, tuple[str, str]]:
    """name -> (value, flag) of the section about this file."""
    title = next(m[0] for m in SECTION.finditer(PAGE) if m[1] == path)
    text = PAGE.partition(title + "\n")[2].partition("\n## ")[0]
    found = ROW.findall(text)
    assert len({name for name, *_ in found}) == len(found)
    return {name: (value, flag.strip()) for name, value, flag, _ in found}


def limits_of(path: str) -> dict[str, float]:
    if path in CONFIGS:
        fields = dataclasses.fields(CONFIGS[path])
        return {f.name: f.default for f in fields if type(f.default) in (int, float)}
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    names = {
        target.id
        for node in parse(ROOT / path).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper() and target.id[0] != "_"
    }
    values = {name: getattr(module, name) for name in names - NO_LIMITS}
    return {name: value for name, value in values.items() if type(value) in (int, float)}


@pytest.mark.parametrize("path", sorted(set(SECTION.findall(PAGE))))
def test_each_table_is_the_limits_of_its_file(path: str) -> None:
    told = {name: number(value) for name, (value, _) in rows(path).items()}
    assert told == limits_of(path)


def test_the_files_that_hold_limits_are_on_the_page() -> None:
    assert {
        *CONFIGS,
        "attention_svc/grammar/limits.py",
        "rpc/config.py",
        "rpc/process/server.py",
        "moe_model/chat/tools.py",
        "rpc/fair_shares.py",
    } <= set(SECTION.findall(PAGE))


@pytest.mark.parametrize("path", ["gateway/config.py", "attention_svc/config.py"])
def test_the_flags_are_those_of_the_services(path: str) -> None:
    for name, (_, flag) in rows(path).items():
        assert (
            flag
            == "`--" + env_name(name).removeprefix("EXPERTMESH_").lower().replace("_", "-") + "`"
        )


def test_flags_of_the_edge_exist() -> None:
    known = {"--" + f.name.replace("_", "-") for f in dataclasses.fields(GatewayConfig)}
    flags = {flag.strip("`") for _, flag in rows("gateway/limits.py").values() if flag}
    assert flags
    assert flags <= known


def test_every_limit_of_the_edge_is_held_somewhere() -> None:
    sources = [path for path in (ROOT / "gateway").rglob("*.py") if path.name != "limits.py"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    for field in dataclasses.fields(Limits):
        assert re.search(rf"limits\.{field.name}\b", code), field.name
