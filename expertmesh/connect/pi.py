"""How is pi configured? By a provider in its models.json, over chat completions."""

from typing import Any

from expertmesh.connect.client import Client, ConfigFile, Places, Setup
from expertmesh.connect.formats.json_text import JsonText
from expertmesh.connect.merge import Wanted, values_of
from expertmesh.connect.mesh import NO_KEY, PROVIDER, Mesh


def setup(mesh: Mesh, places: Places) -> Setup:
    key, environment = NO_KEY, {}
    if mesh.key is not None and mesh.key.secret is not None:
        key = mesh.key.secret.replace("$", "$$").replace("!", "$!")
    elif mesh.key is not None:
        key = f"${mesh.key.variable}"
        environment[mesh.key.variable] = "the key"
    agent = places.named("PI_CODING_AGENT_DIR", ".pi/agent")
    settings = (places.project / ".pi" if places.project else agent) / "settings.json"
    provider = {
        "name": "ExpertMesh",
        "baseUrl": mesh.api,
        "api": "openai-completions",
        "apiKey": key,
        "models": [_model(mesh)],
    }
    return Setup(
        files=(
            ConfigFile(
                path=agent / "models.json",  # a project has none
                kind=JsonText(),
                wanted=Wanted(
                    values_of({"providers": {PROVIDER: provider}}),
                    owned=(("providers", PROVIDER),),
                ),
            ),
            ConfigFile(
                path=settings,
                kind=JsonText(),
                wanted=Wanted({("defaultProvider",): PROVIDER, ("defaultModel",): mesh.model}),
            ),
        ),
        command="pi",
        environment=environment,
        notes=(
            ("pi reads a project's settings once you have said that you trust the project.",)
            if places.project
            else ()
        ),
    )


def _model(mesh: Mesh) -> dict[str, Any]:
    return {
        "id": mesh.model,
        "name": mesh.model,
        "reasoning": True,
        "thinkingLevelMap": {"off": None},  # the model always thinks
        "input": ["text"],
        "contextWindow": mesh.context,
        "maxTokens": mesh.output,
        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
        "compat": {
            "supportsReasoningEffort": False,
            "maxTokensField": "max_tokens",
            "sendSessionAffinityHeaders": True,
            "sessionAffinityFormat": "openrouter",
        },
    }


CLIENT = Client(
    name="pi",
    title="pi",
    tried="1.6.0",
    api="chat completions",
    program="pi",
    takes_folders=True,
    setup=setup,
)
