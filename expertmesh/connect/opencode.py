"""How is OpenCode configured? By a provider in its opencode.json, over chat completions."""

from pathlib import Path

from expertmesh.connect.client import Client, ConfigFile, Places, Setup
from expertmesh.connect.formats.json_text import JsonText
from expertmesh.connect.merge import Wanted, values_of
from expertmesh.connect.mesh import NO_KEY, PROVIDER, Mesh


def setup(mesh: Mesh, places: Places) -> Setup:
    key, environment = NO_KEY, {}
    if mesh.key is not None and mesh.key.secret is not None:
        key = mesh.key.secret
    elif mesh.key is not None:
        key = f"{{env:{mesh.key.variable}}}"
        environment[mesh.key.variable] = "the key"
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "ExpertMesh",
        "options": {
            "baseURL": mesh.api,
            "apiKey": key,
            "headerTimeout": mesh.timeout_ms,
            "chunkTimeout": mesh.timeout_ms,
        },
        "models": {
            mesh.model: {
                "name": mesh.model,
                "reasoning": True,
                "tool_call": True,
                "interleaved": {"field": "reasoning_content"},
                "limit": {"context": mesh.context, "output": mesh.output},
            }
        },
    }
    model = f"{PROVIDER}/{mesh.model}"
    values = values_of({"model": model, "small_model": model, "provider": {PROVIDER: provider}})
    wanted = Wanted(values, owned=(("provider", PROVIDER),))
    return Setup(
        files=(ConfigFile(path=_path(places), kind=JsonText(), wanted=wanted),),
        command="opencode",
        environment=environment,
    )


def _path(places: Places) -> Path:
    folder = places.project or places.named("XDG_CONFIG_HOME", ".config") / "opencode"
    commented = folder / "opencode.jsonc"  # read after the other, so it has the last word
    return commented if commented.exists() else folder / "opencode.json"


CLIENT = Client(
    name="opencode",
    title="OpenCode",
    tried="1.18.33",
    api="chat completions",
    program="opencode",
    takes_folders=True,
    setup=setup,
)
