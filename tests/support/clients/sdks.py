"""How is a program that uses a client run, and what does the model behind the gateway answer it?"""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.clients import environments
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import Script, say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

RUN_S = 120
KEY = "the-only-key"
TOO_LONG = "question = 'y ' * 300_000"
"""A line of a program: more than the model's context."""


@dataclass(frozen=True, kw_only=True)
class Sdk:
    """A client from PyPI; `start` are the lines that begin each program with it.

    The programs know the constants URL, KEY and MODEL.
    """

    name: str
    requirements: tuple[str, ...]
    start: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, gateway: Harness, home: Path, program: str) -> Any:
        """What the program prints as its last line, as JSON."""
        constants = {"URL": gateway.base_url, "KEY": KEY, "MODEL": NAME}
        lines = [f"{name} = {value!r}" for name, value in constants.items()]
        source = "\n".join(["import json", *lines, self.start, program])
        python = environments.python(self.name, *self.requirements)
        file = home / "program.py"  # smolagents reads its tools' source
        file.write_text(source)
        return last_line([str(python), str(file)], home, self.variables)


def last_line(command: list[str], home: Path, variables: Mapping[str, str]) -> Any:
    """What a command prints as its last line, as JSON; its environment has nothing else."""
    done = subprocess.run(
        command,
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def text(tokenizer: Tokenizer, answer: str) -> Script:
    return say(thinking_answer(tokenizer, "hm", answer), eos=EOS)


def call(tokenizer: Tokenizer, tool: str, **arguments: str) -> Script:
    return say(tool_answer(tokenizer, invoke(tool, **arguments)), eos=EOS)


def in_turn(*scripts: Script) -> Script:
    """The next script for each request; beyond the last one a request fails."""
    left = list(scripts)

    def script(request: attention_pb2.GenerateRequest) -> Iterable[Any]:
        return left.pop(0)(request)

    return script


def script_tool_loop(gateway: Harness, tokenizer: Tokenizer) -> None:
    """The model asks for the weather in Rome, and answers when it has the result."""
    weather = call(tokenizer, "weather", place="Rome")
    gateway.script(in_turn(weather, text(tokenizer, "it rains")))


def assert_thinking_came_back(
    gateway: Harness, tokenizer: Tokenizer, *, by_the_gateway: bool
) -> None:
    """The second prompt goes on with what was emitted, and the gateway put it back, or the client.

    `by_the_gateway`: the client had dropped the thinking.
    """
    first, second = (list(request.prompt_token_ids) for request in gateway.fake.requests)
    emitted = [*first, *tool_answer(tokenizer, invoke("weather", place="Rome")), EOS]
    assert second[: len(emitted)] == emitted, tokenizer.decode(second[len(first) - 20 :])
    assert "rain" in tokenizer.decode(second[len(emitted) :])
    restored = gateway.metric_of({"authorization": f"Bearer {KEY}"}, "thinking_restored_total")
    assert restored == by_the_gateway


def grammars(gateway: Harness) -> list[str]:
    """What the model was held to in each request; "" for free text."""
    return [request.grammar.text for request in gateway.fake.requests]
