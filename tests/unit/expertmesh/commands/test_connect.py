"""`expertmesh connect`: what it asks, prints, writes and takes out."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from expertmesh.connect.known import CLIENTS
from tests.support.expertmesh.command import run_command
from tests.support.expertmesh.model_list_server import ModelList, model_list_server

KEY = "the-secret-of-all"
OFFLINE = ("--offline", "--model-name", "m2", "--context", "32768")


@pytest.fixture
def server() -> Iterator[ModelList]:
    with model_list_server() as told:
        yield told


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def connect(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    state = str(home.parent / "state")
    return run_command(
        "connect", *arguments, "--home", str(home), XDG_STATE_HOME=state, **environment
    )


def test_without_a_name_it_lists_the_clients() -> None:
    done = run_command("connect")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(CLIENTS)
    told = json.loads(run_command("connect", "--json").stdout)
    assert [one["name"] for one in told] == list(CLIENTS)


@pytest.mark.parametrize("name", CLIENTS)
def test_it_prints_what_the_server_says_and_changes_nothing(
    name: str, server: ModelList, home: Path
) -> None:
    done = connect(home, name, "--base-url", server.url)
    assert done.returncode == 0, done.stderr
    for word in (server.url, "m2", "196608", str(home), CLIENTS[name].program):
        assert word in done.stdout
    assert list(home.iterdir()) == []
    assert not (home.parent / "state").exists()


@pytest.mark.parametrize("name", CLIENTS)
def test_it_writes_once_and_takes_out_again(name: str, server: ModelList, home: Path) -> None:
    server.key = KEY
    at = (name, "--base-url", server.url)
    done = connect(home, *at, "--write", EXPERTMESH_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert "+++" in done.stdout
    assert "export EXPERTMESH_API_KEY=..." in done.stdout
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    assert KEY not in done.stdout + "".join(path.read_text() for path in files)
    again = connect(home, *at, "--write", EXPERTMESH_API_KEY=KEY)
    assert again.stdout.startswith("nothing to change")
    assert connect(home, name, "--remove").returncode == 0
    assert list(home.iterdir()) == []
    assert connect(home, name, "--remove").stdout == "nothing to take out\n"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_key_is_written_for_the_user_alone_and_never_shown(
    name: str, server: ModelList, home: Path
) -> None:
    server.key = KEY
    at = (name, "--base-url", server.url, "--write", "--write-key")
    for arguments in (at, (*at, "--json")):
        done = connect(home, *arguments, EXPERTMESH_API_KEY=KEY)
        assert done.returncode == 0, done.stderr
        assert KEY not in done.stdout + done.stderr
    files = [path for path in home.rglob("*") if path.is_file()]
    assert any(KEY in path.read_text() for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_key_is_shown_only_to_who_asks_for_it(server: ModelList, home: Path) -> None:
    done = connect(home, "codex", "--base-url", server.url, EXPERTMESH_API_KEY=KEY)
    assert server.shown == [None]
    assert "env_key" not in done.stdout
    server.key = KEY
    done = connect(home, "codex", "--base-url", server.url)
    assert done.returncode == 2
    assert "wants an API key" in done.stderr
    done = connect(home, "codex", "--base-url", server.url, EXPERTMESH_API_KEY="wrong")
    assert (done.returncode, "answered 401" in done.stderr) == (1, True)


def test_several_keys_in_the_variable_are_warned_of(server: ModelList, home: Path) -> None:
    server.key = KEY
    at = ("codex", "--base-url", server.url)
    done = connect(home, *at, EXPERTMESH_API_KEY=f"{KEY},other")
    assert done.returncode == 0
    assert "several keys" in done.stderr
    done = connect(home, *at, "--key-env", "MINE", EXPERTMESH_API_KEY=f"{KEY},other")
    assert done.stderr == ""
    assert 'env_key = "MINE"' in done.stdout


def test_nothing_that_answers_is_one_line(home: Path) -> None:
    done = connect(home, "codex", "--base-url", "http://127.0.0.1:1")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "nothing answers at http://127.0.0.1:1" in done.stderr
    assert "--offline" in done.stderr


@pytest.mark.parametrize("name", CLIENTS)
def test_offline_needs_nobody(name: str, home: Path) -> None:
    arguments = (name, *OFFLINE, "--base-url", "http://127.0.0.1:1", "--json")
    told = json.loads(connect(home, *arguments).stdout)
    assert told["mesh"] == {
        "base_url": "http://127.0.0.1:1/v1",
        "model": "m2",
        "context": 32_768,
        "max_tokens": 8192,
        "timeout_s": 1800,
        "wants_key": False,
        "key_env": None,
    }
    told = json.loads(connect(home, *arguments, EXPERTMESH_API_KEY=KEY).stdout)
    assert told["mesh"]["wants_key"] is True


def test_models_are_chosen_by_name(server: ModelList, home: Path) -> None:
    server.models = [{"id": "one", "max_model_len": 2048}, {"id": "two"}]
    at = ("pi", "--base-url", server.url, "--json")
    assert json.loads(connect(home, *at).stdout)["mesh"]["model"] == "one"
    done = connect(home, *at, "--model-name", "three")
    assert (done.returncode, "no 'three', but one, two" in done.stderr) == (2, True)
    done = connect(home, *at, "--model-name", "two")
    assert (done.returncode, "--context: missing" in done.stderr) == (2, True)
    done = connect(home, *at, "--model-name", "two", "--context", "4096")
    assert json.loads(done.stdout)["mesh"]["context"] == 4096
    done = connect(home, *at, "--context", "4096")
    assert (done.returncode, "at most the server's 2048" in done.stderr) == (2, True)


@pytest.mark.parametrize("models", [None, [1], [{"name": "x"}], "x"])
def test_what_is_no_list_of_models_is_told(server: ModelList, home: Path, models: Any) -> None:
    server.models = models
    done = connect(home, "pi", "--base-url", server.url)
    assert (done.returncode, "no list of models" in done.stderr) == (1, True), done.stderr


def test_a_server_without_a_model_or_still_starting_is_not_ready(
    server: ModelList, home: Path
) -> None:
    server.models = []
    assert connect(home, "pi", "--base-url", server.url).returncode == 3
    server.status = 503
    assert connect(home, "pi", "--base-url", server.url).returncode == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("vim",), "'vim' is none of the clients: claude-code, codex"),
        (("codex", "--write", "--remove"), "give one of them"),
        (("codex", "--write-key", *OFFLINE), "works with --write only"),
        (("codex", "--write-key", "--write", *OFFLINE), "there is no key"),
        (("codex", "--dir", ".", *OFFLINE), "user's configuration only"),
        (("pi", "--dir", "/nowhere", *OFFLINE), "--dir: /nowhere is no folder"),
        (("pi", "--offline"), "needs --model-name and --context"),
        (("pi", *OFFLINE, "--key-env", "A B", "--api-key", "k"), "key_env"),
        (("pi", *OFFLINE, "--max-tokens", "40000"), "max_tokens"),
        (("pi", *OFFLINE, "--base-url", "http://a b"), "base_url"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    arguments: tuple[str, ...], told: str, home: Path
) -> None:
    done = connect(home, *arguments)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr


def test_a_file_that_cannot_be_merged_is_printed_instead(home: Path) -> None:
    path = home / ".codex" / "config.toml"
    path.parent.mkdir()
    path.write_text("model_providers = {}\n")
    done = connect(home, "codex", *OFFLINE, "--write")
    assert done.returncode == 1
    assert f"{path} cannot be merged safely" in done.stderr
    assert "[model_providers.expertmesh]" in done.stdout
    assert path.read_text() == "model_providers = {}\n"


def test_a_project_can_have_its_own(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    at = ("opencode", "--dir", str(project))
    assert connect(home, *at, *OFFLINE, "--write").returncode == 0
    assert list(home.iterdir()) == []
    assert [path.name for path in project.iterdir()] == ["opencode.json"]
    connect(home, "opencode", "--remove")
    assert (project / "opencode.json").exists(), "that was another place"
    connect(home, *at, "--remove")
    assert list(project.iterdir()) == []


@pytest.mark.parametrize("key", ["", KEY])
def test_a_key_of_another_service_does_not_go_to_the_mesh(home: Path, key: str) -> None:
    """And is there again afterwards."""
    theirs = {"provider": "openai-compatible", "apiKey": "sk-of-another", "model": "big"}
    entry = {"settings": theirs, "updatedAt": "2026-02-02T00:00:00.000Z"}
    cline = home / ".cline" / "data" / "settings" / "providers.json"
    claude = home / ".claude" / "settings.json"
    texts = {
        cline: json.dumps({"version": 1, "providers": {"openai-compatible": entry}}),
        claude: json.dumps({"env": {"ANTHROPIC_AUTH_TOKEN": "a", "ANTHROPIC_API_KEY": "b"}}),
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True)
        path.write_text(text)
    for name in ("cline", "claude-code"):
        done = connect(home, name, *OFFLINE, "--write", EXPERTMESH_API_KEY=key)
        assert done.returncode == 0, done.stderr
        assert "sk-of-another" not in done.stdout
    settings = json.loads(cline.read_text())["providers"]["openai-compatible"]["settings"]
    assert settings.get("apiKey", "from the variable") == ("from the variable" if key else "none")
    env = json.loads(claude.read_text())["env"]
    assert env.get("ANTHROPIC_AUTH_TOKEN", "by the helper") == ("by the helper" if key else "none")
    assert env["ANTHROPIC_API_KEY"] == ""
    for name in ("cline", "claude-code"):
        connect(home, name, "--remove")
    assert {path: path.read_text() for path in texts} == texts
