"""How is each coding agent started, and how does it call a shell?"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import environments
from tests.support.clients.programs import Finished, run
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME


@dataclass(frozen=True, kw_only=True)
class Agent:
    """One coding agent: `command` starts it on a question, in a folder that is its home too."""

    install: Callable[[], Path]
    arguments: tuple[str, ...]
    tool: str
    """Its tool for the shell, whose parameter is named `command`."""
    settings: Callable[[str, str], Mapping[str, str]] = lambda base_url, question: {}
    """Files below the home, by name, for this address of the gateway and this question."""
    variables: Callable[[str], Mapping[str, str]] = lambda base_url: {}
    extra: tuple[tuple[str, str], ...] = ()
    """Further parameters of the tool."""
    ends_by: str = ""
    """The command that ends its work, followed by the answer; without it, a text does."""

    def ask(self, gateway: Harness, home: Path, question: str) -> Finished:
        for name, text in self.settings(gateway.base_url, question).items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(text)
        return run(
            [str(self.install()), *self.arguments],
            home,
            self.variables(gateway.base_url),
            question=question,
        )

    def shell(self, command: str) -> str:
        return invoke(self.tool, command=command, **dict(self.extra))

    def last(self, tokenizer: Tokenizer, answer: str) -> list[int]:
        """What the model says to end the work with this answer."""
        if self.ends_by:
            return tool_answer(tokenizer, self.shell(f"{self.ends_by} && echo {answer}"))
        return thinking_answer(tokenizer, "hm", answer)


def _opencode_settings(base_url: str, question: str) -> Mapping[str, str]:
    limit = {"context": 400_000, "output": 2048}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{base_url}/v1", "apiKey": "any"},
        "models": {NAME: {"limit": limit}},
    }
    settings = {
        "model": f"mesh/{NAME}",
        "provider": {"mesh": provider},
        "permission": {"bash": "allow"},
        "autoupdate": False,
        "share": "disabled",
    }
    return {"opencode.json": json.dumps(settings)}


OPENCODE = Agent(
    install=lambda: environments.node("opencode-ai", "1.18.33", "opencode"),
    arguments=("run",),
    tool="bash",
    settings=_opencode_settings,
    variables=lambda base_url: {"OPENCODE_DISABLE_MODELS_FETCH": "1"},
)


def _mini_settings(base_url: str, question: str) -> Mapping[str, str]:
    model = {"model_name": f"openai/{NAME}", "model_kwargs": {"api_base": f"{base_url}/v1"}}
    return {"local.yaml": json.dumps({"run": {"task": question}, "model": model})}


MINI = Agent(
    install=lambda: environments.python("mini-swe-agent", "mini-swe-agent==2.4.6").parent / "mini",
    arguments=("-y", "--exit-immediately", "-c", "mini.yaml", "-c", "local.yaml"),
    tool="bash",
    settings=_mini_settings,
    variables=lambda base_url: {
        "OPENAI_API_KEY": "any",
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "2",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    },
    ends_by="echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",
)

QWEN = Agent(
    install=lambda: environments.node("@qwen-code/qwen-code", "0.15.10", "qwen"),
    arguments=("--yolo", "--auth-type", "openai"),
    tool="run_shell_command",
    settings=lambda base_url, question: {
        ".qwen/settings.json": '{"memory": {"enableManagedAutoMemory": false}}'
    },
    variables=lambda base_url: {
        "OPENAI_BASE_URL": f"{base_url}/v1",
        "OPENAI_API_KEY": "any",
        "OPENAI_MODEL": NAME,
    },
    extra=(("is_background", "false"),),
)

AIDER = Agent(
    install=lambda: environments.python("aider", "aider-chat==0.86.2").with_name("aider"),
    arguments=(
        *("--model", f"openai/{NAME}", "--no-git", "--yes-always", "--no-check-update"),
        *("--no-show-model-warnings", "--no-show-release-notes", "--analytics-disable"),
        *("--no-pretty", "--message-file", "question.txt", "hello.txt"),
    ),
    tool="",  # it has none: the answer's text says how to change a file
    settings=lambda base_url, question: {"question.txt": question, "hello.txt": "hello\n"},
    variables=lambda base_url: {
        "OPENAI_API_BASE": f"{base_url}/v1",
        "OPENAI_API_KEY": "any",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    },
)
