"""deploy/compose.yaml keeps answers where they outlive the gateway's container."""

import os
import re
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from gateway.config import URL_VARIABLE, GatewayConfig
from tests.support.places import ROOT

COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
GATEWAY = COMPOSE["services"]["gateway"]


def environment(**given: str) -> dict[str, str]:
    """The gateway's, where these variables are set outside; every default is in the file."""

    def value(match: re.Match[str]) -> str:
        return given.get(match[1]) or match[2] or ""

    return {
        name: re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, str(text))
        for name, text in GATEWAY["environment"].items()
    }


def config(monkeypatch: pytest.MonkeyPatch, **given: str) -> GatewayConfig:
    store = {name: text for name, text in environment(**given).items() if "RESPONSE_STORE" in name}
    for name, text in store.items():
        monkeypatch.setitem(os.environ, name, text)
    named = {
        name.removeprefix("EXPERTMESH_").lower(): text
        for name, text in store.items()
        if name != URL_VARIABLE
    }
    return GatewayConfig(model="m", attention=("127.0.0.1:1",), **named)  # type: ignore[arg-type]


def test_the_gateways_store_is_on_a_volume_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    path = PurePosixPath(config(monkeypatch).response_store)
    mounts: dict[str, str] = {}
    for one in GATEWAY["volumes"]:
        source, target = one.rsplit(":", 2 if one.endswith(":ro") else 1)[:2]
        mounts[target] = "" if one.endswith(":ro") else source
    volume = mounts[str(path.parent)]
    assert volume in COMPOSE["volumes"]
    users: list[Any] = [one.get("volumes", ()) for one in COMPOSE["services"].values()]
    assert sum(any(str(v).startswith(f"{volume}:") for v in of_one) for of_one in users) == 1


def test_postgres_takes_two_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://user:word@host/name"
    given = {"EXPERTMESH_RESPONSE_STORE": "postgres", "EXPERTMESH_RESPONSE_STORE_URL": url}
    assert config(monkeypatch, **given).response_store_url() == url
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "project['optional-dependencies']['postgres']" in dockerfile
