"""How is aider configured? By the model's own settings and limits, over chat completions."""

from typing import Any

from expertmesh.connect.client import Client, ConfigFile, Places, Setup
from expertmesh.connect.formats.format import Path
from expertmesh.connect.formats.json_text import JsonText
from expertmesh.connect.formats.yaml_items import YamlItems
from expertmesh.connect.formats.yaml_text import YamlText
from expertmesh.connect.merge import Wanted, values_of
from expertmesh.connect.mesh import NO_KEY, Mesh


def setup(mesh: Mesh, places: Places) -> Setup:
    # Unlike openai/, hosted_vllm/ has a variable of its own for the key: a key of OpenAI's own
    # service, which is in aider's configuration, does not go to the mesh.
    model = f"hosted_vllm/{mesh.model}"
    parameters: dict[str, Any] = {"api_base": mesh.api}
    command, environment = "aider", {}
    if mesh.key is None:
        parameters["api_key"] = NO_KEY
    elif mesh.key.secret is not None:
        parameters["api_key"] = mesh.key.secret
    else:
        command = f'HOSTED_VLLM_API_KEY="${mesh.key.variable}" aider'
        environment[mesh.key.variable] = "the key"
    settings = {
        "name": model,
        "edit_format": "diff",  # whole files take long to write
        "use_repo_map": True,
        "use_temperature": False,  # the model's own, and not 0
        "weak_model_name": model,
        "extra_params": parameters,
    }
    limits = {
        "max_input_tokens": mesh.context,
        "max_output_tokens": mesh.output,
        "litellm_provider": "hosted_vllm",
        "mode": "chat",
        "input_cost_per_token": 0,
        "output_cost_per_token": 0,
    }
    folder = places.project or places.home
    chosen: dict[Path, Any] = {("model",): model, ("timeout",): mesh.timeout_s}
    return Setup(
        files=(
            ConfigFile(
                path=folder / ".aider.model.settings.yml",
                kind=YamlItems(),
                wanted=Wanted({(model,): settings}),
            ),
            ConfigFile(
                path=folder / ".aider.model.metadata.json",
                kind=JsonText(),
                wanted=Wanted(values_of({model: limits}), owned=((model,),)),
            ),
            ConfigFile(path=folder / ".aider.conf.yml", kind=YamlText(), wanted=Wanted(chosen)),
        ),
        command=command,
        environment=environment,
    )


CLIENT = Client(
    name="aider",
    title="aider",
    tried="0.86.2",
    api="chat completions",
    program="aider",
    takes_folders=True,
    setup=setup,
)
