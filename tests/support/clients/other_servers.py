"""Which clients of other servers are run, and how does a program configure each?"""

import json
from pathlib import Path
from typing import Any

from tests.support.clients import environments
from tests.support.clients.programs import last_line
from tests.support.clients.sdks import Place, Sdk

OLLAMA = Sdk(
    name="ollama",
    requirements=("ollama==0.6.3",),
    start="""
from ollama import Client, ResponseError
client = Client(host=URL, headers={"Authorization": "Bearer " + KEY})
question = [{"role": "user", "content": "hello"}]
""",
)

OLLAMA_LANGCHAIN = Sdk(
    name="langchain-ollama",
    requirements=("langchain==1.5.2", "langchain-ollama==1.1.0"),
    start="""
from langchain_ollama import ChatOllama
options = {"headers": {"Authorization": "Bearer " + KEY}}

def model(**more):
    return ChatOllama(model=MODEL, base_url=URL, client_kwargs=options, **more)
""",
)

# Its frontend alone; torch, which it imports, and numpy are this environment's.
SGLANG = Sdk(
    name="sglang",
    requirements=(
        *("requests==2.34.2", "aiohttp==3.14.5", "msgspec==0.23.0", "pybase64==1.5.1"),
        *("triton==3.9.0", "pillow==13.0.0", "pyzmq==27.3.0", "ipython==9.18.1"),
    ),
    alone=("sglang==0.5.23",),
    shares_ours=True,
    start="""
import sglang as sgl
from sglang import RuntimeEndpoint
sgl.set_default_backend(RuntimeEndpoint(URL, api_key=KEY))
""",
)

LM_EVAL = Sdk(
    name="lm-eval", requirements=("lm-eval[api]==0.4.13", "transformers==5.17.0"), start=""
)

_OLLAMA_JS = """
const client = new Ollama({ host: URL, headers: { Authorization: "Bearer " + KEY } })
const messages = [{ role: "user", content: "hello" }]
"""


def run_ollama_js(place: Place, home: Path, program: str) -> Any:
    """What a program with Ollama's library for Node prints as its last line, as JSON."""
    modules = environments.node_package("ollama@0.6.4") / "node_modules"
    (home / "node_modules").symlink_to(modules)  # Node looks for packages beside the file
    constants = [f"const {name} = {json.dumps(text)}" for name, text in place.constants.items()]
    file = home / "program.mjs"
    file.write_text("\n".join(['import { Ollama } from "ollama"', *constants, _OLLAMA_JS, program]))
    return last_line(["node", str(file)], home, {})
