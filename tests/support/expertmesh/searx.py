"""Debian's searx as a search engine of its own, which asks one local site and nobody else."""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

EXAMPLE = Path("/usr/share/doc/searx/examples/settings.yml")
START_S = 60.0


def searx_is_installed() -> bool:
    return shutil.which("searx-run") is not None and EXAMPLE.is_file()


def write_settings(path: Path, port: int, api_url: str) -> None:
    """A whole file: the one by default is missing in the package."""
    settings: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    settings["server"] |= {"port": port, "bind_address": "127.0.0.1", "secret_key": "of-a-test"}
    settings["search"] |= {"ban_time_on_fail": 0, "max_ban_time_on_fail": 0}
    settings["outgoing"] |= {"request_timeout": 10.0}
    settings["engines"] = [
        {
            "name": "local",
            "engine": "json_engine",
            "shortcut": "lo",
            "categories": "general",
            "enable_http": True,
            "search_url": f"{api_url}?q={{query}}",
            "results_query": "results",
            "url_query": "url",
            "title_query": "title",
            "content_query": "content",
        }
    ]
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")


@asynccontextmanager
async def running_searx(folder: Path, api_url: str) -> AsyncIterator[str]:
    """Its URL. `api_url` answers `?q=` with {"results": [{"url", "title", "content"}]}."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = folder / "searx.yml"
    write_settings(settings, port, api_url)
    log_path = folder / "searx.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "searx-run",
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "SEARX_SETTINGS_PATH": str(settings),
            },
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(START_S), httpx.AsyncClient(trust_env=False) as client:
            while not await _answers(client, url):
                assert process.returncode is None, log_path.read_text()
                await asyncio.sleep(0.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/healthz")).status_code < 500
    except httpx.HTTPError:
        return False
