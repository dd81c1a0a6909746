"""What tools make of /openapi.json: requests that find no lie in it, and clients from it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import environments
from tests.support.clients.programs import RUN_S
from tests.support.clients.sdks import KEY
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness, LoopThread, ready_status
from tests.support.gateway.model import EOS, NAME

pytestmark = pytest.mark.timeout(3600)

TOOLS = ("schemathesis==4.32.5", "openapi-python-client==0.29.1")
EXAMPLES, SEED = 200, 15
# A body may be a 400 although the schema takes it: what no schema can say is in
# gateway/shapes/field_schemas.py, and an integer beyond 64 bits is refused wherever it stands.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = [
  "2xx", "3xx", "400", "401", "403", "404", "409", "429", "5xx",
]
"""


@pytest.fixture
def document(gateway: Harness, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(gateway.get("/openapi.json").json()))
    return path


def run(*command: str, cwd: Path, timeout_s: float = RUN_S) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def tool(name: str) -> str:
    return str(environments.python("schema-tools", *TOOLS).with_name(name))


def asking_the_served_model(document: Any) -> Any:
    """The document, for requests that name the one model: others get no further than its name."""
    for schema in document["components"]["schemas"].values():
        of_a_request = schema.get("additionalProperties") is not False
        if of_a_request and "model" in schema.get("properties", {}):
            optional = "anyOf" in schema["properties"]["model"]
            schema["properties"]["model"] = {"enum": [NAME, None] if optional else [NAME]}
    return document


def test_random_requests_find_no_lie(
    model_folder: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """All checks of schemathesis, the one whether a key is needed among them."""
    loop = LoopThread()
    gateway = Harness(
        loop,
        model_folder,
        status=ready_status(),
        api_key=(KEY,),
        wait_ready=False,
        response_store=str(tmp_path / "responses.sqlite"),
    )
    gateway.script(say(tokenizer.encode_text("hi"), eos=EOS))
    document = gateway.get("/openapi.json", headers={"x-api-key": KEY}).json()
    (tmp_path / "openapi.json").write_text(json.dumps(asking_the_served_model(document)))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    try:
        run(
            *(tool("schemathesis"), "run", "openapi.json", "--url", gateway.base_url),
            *("--checks", "all", "--max-examples", str(EXAMPLES), "--seed", str(SEED)),
            *("--continue-on-failure", "--suppress-health-check", "all"),
            *("--header", f"Authorization: Bearer {KEY}"),
            cwd=tmp_path,
            timeout_s=3500,
        )
    finally:
        gateway.close()
        loop.close()


def test_a_python_client_is_generated_without_a_warning(document: Path, tmp_path: Path) -> None:
    folder = tmp_path / "client"
    flags = ("--path", str(document), "--output-path", str(folder), "--meta", "none")
    told = run(tool("openapi-python-client"), "generate", *flags, cwd=tmp_path)
    assert "Unable to" not in told
    made = {path.stem for path in (folder / "models").glob("*.py")}
    assert {"chat_request", "chat_answer", "message_answer", "open_ai_error"} <= made


def test_types_for_typescript_are_generated(document: Path, tmp_path: Path) -> None:
    command = environments.node("openapi-typescript", "7.13.0", "openapi-typescript")
    run(str(command), str(document), "--output", "api.ts", cwd=tmp_path)
    types = (tmp_path / "api.ts").read_text()
    for name in ("ChatRequest", "ChatAnswer", "MessageAnswer", "OpenAIError"):
        assert f"        {name}: {{" in types
