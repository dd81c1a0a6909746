"""How is Codex configured? By a provider in its config.toml, over the Responses API."""

from expertmesh.connect.client import Client, ConfigFile, Places, Setup
from expertmesh.connect.formats.toml_text import TomlText
from expertmesh.connect.merge import Wanted, values_of
from expertmesh.connect.mesh import PROVIDER, Mesh


def setup(mesh: Mesh, places: Places) -> Setup:
    provider: dict[str, object] = {
        "name": "ExpertMesh",
        "base_url": mesh.api,
        "wire_api": "responses",  # the only one it has
        "env_key": None,
        "experimental_bearer_token": None,
        # It counts events; the comments of a long prefill are none.
        "stream_idle_timeout_ms": mesh.timeout_ms,
    }
    environment = {}
    if mesh.key is not None and mesh.key.secret is not None:
        provider["experimental_bearer_token"] = mesh.key.secret
    elif mesh.key is not None:
        provider["env_key"] = mesh.key.variable
        environment[mesh.key.variable] = "the key"
    values = values_of(
        {
            "model": mesh.model,
            "model_provider": PROVIDER,
            "model_context_window": mesh.context,
            "model_auto_compact_token_limit": mesh.context - mesh.output,
            "show_raw_agent_reasoning": True,  # there are no summaries of it
            "model_providers": {PROVIDER: provider},
        }
    )
    path = places.named("CODEX_HOME", ".codex") / "config.toml"
    wanted = Wanted(values, owned=(("model_providers", PROVIDER),))
    return Setup(
        files=(ConfigFile(path=path, kind=TomlText(), wanted=wanted),),
        command="codex",
        environment=environment,
        notes=("Codex warns that it knows no metadata of the model; its limits are set here.",),
    )


CLIENT = Client(
    name="codex",
    title="Codex",
    tried="0.171.0",
    api="Responses",
    program="codex",
    takes_folders=False,
    setup=setup,
)
