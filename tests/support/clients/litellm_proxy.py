"""How is LiteLLM's proxy put in front of the gateway?"""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.clients import environments
from tests.support.clients.programs import RUN_S, environment
from tests.support.clients.sdks import Place

PROVIDERS = ("openai", "hosted_vllm", "anthropic")
"""The ways in which it speaks to the gateway; a model of its own for each, of that name."""

_REQUIREMENT = "litellm[proxy]==1.108.7"
_KEY = "sk-" + "0123456789abcdef" * 2
_URL = re.compile(r"Uvicorn running on (http://\S+)")


@contextmanager
def litellm_proxy(gateway: Place, home: Path) -> Iterator[str]:
    """Its address; `home` takes its settings and its log."""
    models = [
        {
            "model_name": provider,
            "litellm_params": {
                "model": f"{provider}/{gateway.model}",
                "api_base": gateway.url + ("" if provider == "anthropic" else "/v1"),
                "api_key": gateway.key,
            },
        }
        for provider in PROVIDERS
    ]
    (home / "config.yaml").write_text(json.dumps({"model_list": models}))
    python = environments.python("litellm-proxy", _REQUIREMENT)
    listen = ["--config", "config.yaml", "--host=127.0.0.1", "--port=0"]
    variables = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": _KEY}
    log = home / "proxy.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(python.with_name("litellm")), *listen],
            cwd=home,
            env=environment(home, variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        process.wait(RUN_S)


def at(url: str, provider: str) -> Place:
    """The model of this provider, behind the proxy at this address."""
    return Place(url, provider, _KEY)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + RUN_S
    while not (found := _URL.search(log.read_text())):
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.1)
    return found[1]
