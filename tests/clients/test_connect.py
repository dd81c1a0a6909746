"""Clients as `expertmesh connect` configures them in an empty home, with a key and without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.clients.connected import CONNECTED, Connected
from tests.support.clients.scripted import CONTEXT
from tests.support.clients.sdks import KEY
from tests.support.gateway.answers import thinking_answer, tool_answer
from tests.support.gateway.fake_attention import Script, in_turn, say
from tests.support.gateway.harness import Harness, LoopThread, ready_status
from tests.support.gateway.model import EOS

EDIT = """\
I change it.

hello.txt
```
<<<<<<< SEARCH
hello
=======
good day
>>>>>>> REPLACE
```
"""


@pytest.fixture(params=CONNECTED, ids=lambda one: one.name)
def client(request: pytest.FixtureRequest) -> Connected:
    found: Connected = request.param
    return found


@pytest.fixture(params=[False, True], ids=["open", "key"])
def mesh(request: pytest.FixtureRequest, model_folder: Path) -> Iterator[Harness]:
    """A gateway that wants a key, or none."""
    loop = LoopThread()
    harness = Harness(
        loop,
        model_folder,
        limits=Limits(early_error_wait_s=10.0),
        status=ready_status(CONTEXT),
        **({"api_key": (KEY,)} if request.param else {}),
    )
    yield harness
    harness.close()
    loop.close()


def script_turns(gateway: Harness, tokenizer: Tokenizer, *turns: Script) -> list[Any]:
    """What the agent is answered; by the way others ask for a title. Returns its requests."""
    turn, seen = in_turn(*turns), []

    def script(request: attention_pb2.GenerateRequest) -> Any:
        if len(turns) > 1 and "<tools>" not in tokenizer.decode(request.prompt_token_ids):
            return say(thinking_answer(tokenizer, "hm", "A title"), eos=EOS)(request)
        seen.append(request)
        return turn(request)

    gateway.script(script)
    return seen


def files_of(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): path.read_text()
        for path in home.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_it_runs_a_tool_with_what_was_written(
    client: Connected, mesh: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    told = client.connect_to(mesh, home, "--write")
    wants_key = mesh.config.api_key != ()
    assert told["mesh"]["wants_key"] is wants_key
    assert KEY not in "".join(files_of(home).values())
    (home / "hello.txt").write_text("hello\n")
    last = say(thinking_answer(tokenizer, "well", "it is done"), eos=EOS, step=8)
    called = client.shell("echo good day > hello.txt; cat hello.txt")
    edit = say(thinking_answer(tokenizer, "hm", EDIT), eos=EOS, step=8)
    calls = say(tool_answer(tokenizer, called), eos=EOS, step=8)
    seen = script_turns(mesh, tokenizer, *((calls, last) if called else (edit,)))
    key = {"EXPERTMESH_API_KEY": KEY} if wants_key else {}
    done = client.ask(told["command"], home, "Be more formal", **key)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (home / "hello.txt").read_text() == "good day\n", done.stdout + done.stderr
    assert ("it is done" if called else "I change it.") in done.stdout
    prompts = [list(request.prompt_token_ids) for request in seen]
    assert "Be more formal" in tokenizer.decode(prompts[0])
    if called:
        ids = [*prompts[0], *tool_answer(tokenizer, called), EOS]
        assert prompts[1][: len(ids)] == ids, "the thinking is lost, and the prefix cache misses"
    if client.sends_output:
        output = min(told["mesh"]["max_tokens"], client.longest_output)
        assert seen[0].sampling.max_tokens == output


def test_a_second_time_changes_nothing_and_all_of_it_can_be_taken_out(
    client: Connected, mesh: Harness, home: Path
) -> None:
    client.connect_to(mesh, home, "--write")
    first = files_of(home)
    assert first
    told = client.connect_to(mesh, home, "--write")
    assert [one["changed"] for one in told["written"]] == [False] * len(first)
    assert files_of(home) == first
    client.connect(home, "--remove")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(one, id=one.name)
        for one in CONNECTED
        if one.name in ("claude-code", "opencode", "aider", "pi")
    ],
)
def test_a_project_has_a_configuration_of_its_own(
    client: Connected, mesh: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    """pi is told that the project is trusted."""
    project = home / "project"
    project.mkdir()
    told = client.connect_to(mesh, home, "--write", "--dir", str(project))
    (project / "hello.txt").write_text("hello\n")
    last = say(thinking_answer(tokenizer, "well", "it is done"), eos=EOS, step=8)
    mesh.script(lambda request: last(request))
    words = ("--approve",) if client.name == "pi" else ()
    key = {"EXPERTMESH_API_KEY": KEY} if told["mesh"]["wants_key"] else {}
    started_by = f"cd project; {' '.join([told['command'], *words])}"
    done = client.ask(started_by, home, "Hello", **key)
    assert "it is done" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    assert mesh.fake.requests
