"""How is a program that uses a client's library made, and run against a gateway?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.clients import environments
from tests.support.clients.programs import last_line
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME

KEY = "the-only-key"
TOO_LONG = "question = 'y ' * 300_000"
"""A line of a program: more than the model's context."""


@dataclass(frozen=True)
class Place:
    """Where a client finds a model; its programs know these as constants."""

    url: str
    model: str = NAME
    key: str = KEY

    @property
    def constants(self) -> dict[str, str]:
        return {"URL": self.url, "MODEL": self.model, "KEY": self.key}


def at(gateway: Harness) -> Place:
    return Place(gateway.base_url)


def _lines(constants: Mapping[str, str], declare: str = "") -> str:
    return "".join(f"{declare}{name} = {json.dumps(text)}\n" for name, text in constants.items())


@dataclass(frozen=True)
class Task:
    """A question that the model answers with a tool."""

    question: str
    tool: str
    python: str
    """The tool as a function in Python."""
    javascript: str
    """The same as TOOL, an entry of `tools` for OpenAI's library."""


@dataclass(frozen=True, kw_only=True)
class Sdk:
    """A client from PyPI; `start` are the lines that begin each program with it."""

    name: str
    requirements: tuple[str, ...]
    start: str
    alone: tuple[str, ...] = ()
    shares_ours: bool = False
    loop: str = ""
    """Lines that let the model use TOOL until it answers QUESTION, and print the answer."""
    streamed: str = ""
    """The same with streams."""
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, place: Place, home: Path, program: str) -> Any:
        """What the program prints as its last line, as JSON."""
        file = home / "program.py"  # smolagents reads its tools' source
        constants = _lines(place.constants)
        file.write_text("\n".join(["import json", constants, self.start, program]))
        return last_line([str(self.interpreter()), str(file)], home, self.variables)

    def interpreter(self) -> Path:
        """Python with the client installed."""
        return environments.python(
            self.name, *self.requirements, alone=self.alone, shares_ours=self.shares_ours
        )

    def run_loop(self, place: Place, home: Path, task: Task, *, streamed: bool = False) -> Any:
        lines = self.streamed if streamed else self.loop
        question = _lines({"QUESTION": task.question})
        return self.run(place, home, f"{question}{task.python}\nTOOL = {task.tool}\n{lines}")


@dataclass(frozen=True, kw_only=True)
class NodeSdk:
    """A client from npm, whose package has a command; `start` begins each program with it.

    `program` runs inside an asynchronous function and returns its result.
    """

    package: str
    version: str
    command: str
    start: str
    loop: str
    streamed: str
    beside: tuple[str, ...] = ()
    """Further packages that its programs use."""

    def run(self, place: Place, home: Path, program: str) -> Any:
        """What the program returns."""
        command = environments.node(self.package, self.version, self.command, *self.beside)
        file = home / "program.cjs"
        body = f"async function main() {{\n{program}\n}}\n"
        end = "main().then((result) => console.log(JSON.stringify(result)))\n"
        file.write_text(_lines(place.constants, "const ") + self.start + body + end)
        return last_line(["node", str(file)], home, {"NODE_PATH": str(command.parents[1])})

    def run_loop(self, place: Place, home: Path, task: Task, *, streamed: bool = False) -> Any:
        lines = self.streamed if streamed else self.loop
        question = _lines({"QUESTION": task.question}, "const ")
        return self.run(place, home, question + task.javascript + lines)
