"""How is each client started that `expertmesh connect` has configured?"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.clients import environments
from tests.support.clients.programs import Finished, run
from tests.support.clients.sdks import KEY
from tests.support.expertmesh.command import run_command
from tests.support.gateway.answers import invoke
from tests.support.gateway.harness import Harness


@dataclass(frozen=True, kw_only=True)
class Connected:
    """One client, by the name that `expertmesh connect` has for it."""

    name: str
    install: Callable[[], Path]
    """Its program."""
    arguments: tuple[str, ...]
    """What comes before the question."""
    shell: Callable[[str], str]
    """How the model calls its tool for the shell; "" if it has none."""
    behind: tuple[str, ...] = ()
    """What comes after the question."""
    variables: Mapping[str, str] = field(default_factory=dict)
    sends_output: bool = True
    """Whether requests have the limit of an answer."""
    longest_output: int = 1_000_000
    """Above it the client asks for less than it is told."""

    def connect(self, home: Path, *arguments: str, **environment: str) -> Any:
        """What `expertmesh connect` says, with this home, as JSON."""
        done = run_command(
            *("connect", self.name, "--home", str(home), "--json", *arguments),
            XDG_STATE_HOME=str(home.parent / "state"),
            **environment,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def connect_to(self, gateway: Harness, home: Path, *arguments: str) -> Any:
        arguments = ("--base-url", gateway.base_url, *arguments)
        return self.connect(home, *arguments, EXPERTMESH_API_KEY=KEY)

    def ask(self, started_by: str, home: Path, question: str, **variables: str) -> Finished:
        """One question, with the command that `expertmesh connect` names."""
        folder = self.install().parent
        words = shlex.join([*self.arguments, question, *self.behind])
        line = f"PATH={shlex.quote(str(folder))}:$PATH; {started_by} {words}"
        return run(["sh", "-c", line], home, {**self.variables, **variables})


CONNECTED = (
    Connected(
        name="claude-code",
        install=lambda: environments.node("@anthropic-ai/claude-code", "2.1.197", "claude"),
        arguments=("-p", "--allowedTools", "Bash", "--"),
        shell=lambda command: invoke("Bash", command=command),
        variables={"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
    ),
    Connected(
        name="codex",
        install=lambda: environments.node("@openai/codex", "0.171.0", "codex"),
        arguments=("exec", "--skip-git-repo-check", "--sandbox", "danger-full-access"),
        shell=lambda command: invoke("exec_command", cmd=command),
        sends_output=False,
    ),
    Connected(
        name="opencode",
        install=lambda: environments.node("opencode-ai", "1.18.33", "opencode"),
        arguments=("run",),
        shell=lambda command: invoke("bash", command=command),
        variables={"OPENCODE_DISABLE_MODELS_FETCH": "1"},
        longest_output=32_000,
    ),
    Connected(
        name="cline",
        install=lambda: environments.node("cline", "3.0.65", "cline"),
        arguments=("--json",),
        shell=lambda command: invoke("run_commands", commands=json.dumps([command])),
        longest_output=32_000,
    ),
    Connected(
        name="aider",
        install=lambda: environments.python("aider", "aider-chat==0.86.2").with_name("aider"),
        arguments=(
            *("--no-git", "--yes-always", "--no-check-update", "--no-show-release-notes"),
            *("--analytics-disable", "--no-pretty", "--message"),
        ),
        behind=("hello.txt",),
        shell=lambda command: "",
        variables={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        sends_output=False,
    ),
    Connected(
        name="pi",
        # It needs a newer Node than most systems have; beside it, it is found first.
        install=lambda: environments.node(
            "@earendil-works/pi-coding-agent", "1.6.0", "pi", "node@24.21.0"
        ),
        arguments=("-p",),
        shell=lambda command: invoke("bash", command=command),
    ),
)
