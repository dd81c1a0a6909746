"""How is Cline configured? By its provider for compatible servers, over chat completions."""

from typing import Any

from expertmesh.connect.client import Client, ConfigFile, Places, Setup
from expertmesh.connect.formats.json_text import JsonText
from expertmesh.connect.merge import Wanted, values_of
from expertmesh.connect.mesh import NO_KEY, Mesh

ITS_PROVIDER = "openai-compatible"
"""Of names of one's own it says that they are unknown."""


def setup(mesh: Mesh, places: Places) -> Setup:
    key: str | None = NO_KEY
    command, environment = "cline", {}
    if mesh.key is not None and mesh.key.secret is not None:
        key = mesh.key.secret
    elif mesh.key is not None:  # it looks for it in the variable of OpenAI's own key
        key, command = None, f'OPENAI_API_KEY="${mesh.key.variable}" cline'
        environment[mesh.key.variable] = "the key"
    settings: dict[str, Any] = {
        "provider": ITS_PROVIDER,
        "apiKey": key,
        "model": mesh.model,
        "baseUrl": mesh.api,
        "contextWindow": mesh.context,
        "maxTokens": mesh.output,
        "timeout": mesh.timeout_ms,
    }
    provider = ("providers", ITS_PROVIDER)
    wanted = Wanted(
        values={
            ("lastUsedProvider",): ITS_PROVIDER,
            **values_of(settings, (*provider, "settings")),
        },
        defaults={
            ("version",): 1,
            (*provider, "updatedAt"): "2026-01-01T00:00:00.000Z",  # it wants one, and renews it
            (*provider, "tokenSource"): "manual",
        },
        owned=(provider,),
    )
    path = places.named("CLINE_DATA_DIR", ".cline/data") / "settings" / "providers.json"
    return Setup(
        files=(ConfigFile(path=path, kind=JsonText(), wanted=wanted),),
        command=command,
        environment=environment,
        notes=("In VS Code, enter the same values: API provider OpenAI Compatible.",),
    )


CLIENT = Client(
    name="cline",
    title="Cline",
    tried="3.0.65",
    api="chat completions",
    program="cline",
    takes_folders=False,
    setup=setup,
)
