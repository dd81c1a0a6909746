"""What each client gets for a mesh, read back from the text that would be in its files."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from expertmesh.connect.client import Places, Setup
from expertmesh.connect.known import CLIENTS
from expertmesh.connect.mesh import Key, Mesh
from expertmesh.connect.write import content

ROOT = "http://10.0.0.5:8000"
HOME = Path("/home/someone")
SECRET = "the-secret-of-all"


def mesh(**changed: Any) -> Mesh:
    return Mesh(**{"base_url": ROOT, "model": "MiniMax-M2", "context": 196_608, **changed})


def setup(name: str, asked: Mesh, project: Path | None = None, **environ: str) -> Setup:
    return CLIENTS[name].setup(asked, Places(home=HOME, project=project, environ=environ))


def said(made: Setup) -> dict[str, Any]:
    """Path below the home -> what a parser reads there."""
    read = {".json": json.loads, ".jsonc": json.loads, ".toml": tomllib.loads}
    return {
        str(file.path.relative_to(HOME)): read.get(file.path.suffix, yaml.safe_load)(content(file))
        for file in made.files
    }


def test_claude_code() -> None:
    env = {
        "ANTHROPIC_BASE_URL": ROOT,
        "ANTHROPIC_API_KEY": "",
        "ANTHROPIC_AUTH_TOKEN": "none",
        "ANTHROPIC_MODEL": "MiniMax-M2",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": "MiniMax-M2",
        "ANTHROPIC_DEFAULT_SONNET_MODEL": "MiniMax-M2",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "MiniMax-M2",
        "ANTHROPIC_SMALL_FAST_MODEL": "MiniMax-M2",
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "196608",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "32768",
        "API_TIMEOUT_MS": "1800000",
    }
    assert said(setup("claude-code", mesh())) == {".claude/settings.json": {"env": env}}
    keyed = setup("claude-code", mesh(key=Key(variable="MINE")))
    del env["ANTHROPIC_AUTH_TOKEN"]
    helper = {"apiKeyHelper": "printenv MINE", "env": env}
    assert said(keyed) == {".claude/settings.json": helper}
    alone = setup("claude-code", mesh(key=Key()), HOME / "project")
    assert said(alone) == {"project/.claude/settings.local.json": {"env": env}}
    assert alone.command == 'ANTHROPIC_AUTH_TOKEN="$EXPERTMESH_API_KEY" claude'


def test_claude_code_is_told_of_a_context_that_its_tools_fill() -> None:
    assert not setup("claude-code", mesh()).notes
    assert "--tools" in setup("claude-code", mesh(context=32_768)).notes[0]


def test_codex() -> None:
    provider = {
        "name": "ExpertMesh",
        "base_url": f"{ROOT}/v1",
        "wire_api": "responses",
        "stream_idle_timeout_ms": 1_800_000,
    }
    top = {
        "model": "MiniMax-M2",
        "model_provider": "expertmesh",
        "model_context_window": 196_608,
        "model_auto_compact_token_limit": 163_840,
        "show_raw_agent_reasoning": True,
    }
    told = said(setup("codex", mesh()))
    assert list(told.values()) == [{**top, "model_providers": {"expertmesh": provider}}]
    (told,) = said(setup("codex", mesh(key=Key()))).values()
    keyed = {**provider, "env_key": "EXPERTMESH_API_KEY"}
    assert told["model_providers"] == {"expertmesh": keyed}


def test_opencode() -> None:
    (told,) = said(setup("opencode", mesh(key=Key(), timeout_s=5))).values()
    assert told == {
        "model": "expertmesh/MiniMax-M2",
        "small_model": "expertmesh/MiniMax-M2",
        "provider": {
            "expertmesh": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "ExpertMesh",
                "options": {
                    "baseURL": f"{ROOT}/v1",
                    "apiKey": "{env:EXPERTMESH_API_KEY}",
                    "headerTimeout": 5000,
                    "chunkTimeout": 5000,
                },
                "models": {
                    "MiniMax-M2": {
                        "name": "MiniMax-M2",
                        "reasoning": True,
                        "tool_call": True,
                        "interleaved": {"field": "reasoning_content"},
                        "limit": {"context": 196_608, "output": 32_768},
                    }
                },
            }
        },
    }


def test_opencode_prefers_a_file_with_comments_that_is_there(tmp_path: Path) -> None:
    def path() -> Path:
        return (
            CLIENTS["opencode"].setup(mesh(), Places(home=tmp_path, project=tmp_path)).files[0].path
        )

    assert path() == tmp_path / "opencode.json"
    (tmp_path / "opencode.jsonc").write_text("{}")
    assert path() == tmp_path / "opencode.jsonc"


def test_cline() -> None:
    (told,) = said(setup("cline", mesh(max_output=100))).values()
    assert told["lastUsedProvider"] == "openai-compatible"
    assert told["version"] == 1
    assert told["providers"]["openai-compatible"]["settings"] == {
        "provider": "openai-compatible",
        "apiKey": "none",
        "model": "MiniMax-M2",
        "baseUrl": f"{ROOT}/v1",
        "contextWindow": 196_608,
        "maxTokens": 100,
        "timeout": 1_800_000,
    }
    keyed = setup("cline", mesh(key=Key()))
    (told,) = said(keyed).values()
    assert "apiKey" not in told["providers"]["openai-compatible"]["settings"]
    assert keyed.command == 'OPENAI_API_KEY="$EXPERTMESH_API_KEY" cline'


def test_aider() -> None:
    name = "hosted_vllm/MiniMax-M2"
    keyed = setup("aider", mesh(key=Key()))
    told = said(keyed)
    assert told[".aider.conf.yml"] == {"model": name, "timeout": 1800}
    limits = told[".aider.model.metadata.json"][name]
    assert (limits["max_input_tokens"], limits["max_output_tokens"]) == (196_608, 32_768)
    (item,) = told[".aider.model.settings.yml"]
    assert (item["name"], item["weak_model_name"], item["edit_format"]) == (name, name, "diff")
    assert item["extra_params"] == {"api_base": f"{ROOT}/v1"}
    assert keyed.command == 'HOSTED_VLLM_API_KEY="$EXPERTMESH_API_KEY" aider'
    (item,) = said(setup("aider", mesh()))[".aider.model.settings.yml"]
    assert item["extra_params"] == {"api_base": f"{ROOT}/v1", "api_key": "none"}


def test_pi() -> None:
    told = said(setup("pi", mesh(key=Key())))
    chosen = {"defaultProvider": "expertmesh", "defaultModel": "MiniMax-M2"}
    assert told[".pi/agent/settings.json"] == chosen
    provider = told[".pi/agent/models.json"]["providers"]["expertmesh"]
    assert (provider["baseUrl"], provider["api"]) == (f"{ROOT}/v1", "openai-completions")
    assert provider["apiKey"] == "$EXPERTMESH_API_KEY"
    (model,) = provider["models"]
    assert (model["contextWindow"], model["maxTokens"]) == (196_608, 32_768)
    assert model["reasoning"] is True
    alone = said(setup("pi", mesh(), HOME / "project"))
    assert alone["project/.pi/settings.json"] == chosen
    assert ".pi/agent/models.json" in alone


@pytest.mark.parametrize("name", CLIENTS)
def test_a_key_is_in_a_file_only_if_that_was_asked_for(name: str) -> None:
    def texts(key: Key | None) -> str:
        made = setup(name, mesh(key=key))
        return "".join(content(file) for file in made.files) + made.command

    assert SECRET in texts(Key(secret=SECRET))
    assert "EXPERTMESH_API_KEY" not in texts(Key(secret=SECRET))
    assert "EXPERTMESH_API_KEY" in texts(Key())
    assert "EXPERTMESH_API_KEY" not in texts(None)
    assert SECRET not in repr(mesh(key=Key(secret=SECRET)))


@pytest.mark.parametrize(
    ("name", "variable", "path"),
    [
        ("claude-code", "CLAUDE_CONFIG_DIR", "settings.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("opencode", "XDG_CONFIG_HOME", "opencode/opencode.json"),
        ("cline", "CLINE_DATA_DIR", "settings/providers.json"),
        ("pi", "PI_CODING_AGENT_DIR", "models.json"),
    ],
)
def test_a_folder_that_the_client_was_told_is_used(name: str, variable: str, path: str) -> None:
    made = setup(name, mesh(), None, **{variable: "/elsewhere"})
    assert made.files[0].path == Path("/elsewhere") / path


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"context": 7}, "context: at least 1024"),
        ({"max_output": 196_608}, "max_tokens: 1 to less"),
        ({"timeout_s": 0}, "timeout: 1 to"),
        ({"model": "a b"}, "model_name"),
        ({"model": 'a"b'}, "model_name"),
        ({"base_url": "ftp://host"}, "base_url"),
        ({"base_url": 'http://host"'}, "base_url"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        mesh(**changed)


def test_the_name_of_a_variable_is_one() -> None:
    with pytest.raises(ValueError, match="key_env"):
        Key(variable="A; rm -r /")


def test_a_quarter_of_the_context_is_kept_for_answers() -> None:
    assert mesh(context=32_768).output == 8192
    assert mesh().output == 32_768
    assert mesh(base_url="host:1/v1/").api == "http://host:1/v1"
