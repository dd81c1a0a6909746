"""How is one task with its calls and results written down?"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo_model import chat, vocabulary
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.toolboxes import definitions, shapes, toolbox
from demo_model.toolboxes.agent_results import (
    AgentResults,
    GivenOutcome,
    MemoryFolder,
    exited,
    timed_out,
)
from expertmesh.agent.loop.hints import hints_for, hints_in
from expertmesh.agent.prompts import system_prompt
from expertmesh.agent.sandbox.policy import Ending
from expertmesh.agent.tools.syntax import syntax_error
from expertmesh.agent.tools.tool import Effect, Result

THOUGHTLESS_SHARE = 0.06
"""Conversations in which a client dropped the thinking of the steps before the last."""


class Story:
    """A conversation in the making: messages are appended in the order in which they happen."""

    def __init__(
        self,
        draw: Draw,
        skill: str,
        roles: tuple[str, ...],
        *,
        agent_share: float = toolbox.AGENT_SHARE,
    ) -> None:
        self.draw = draw
        self.rng: random.Random = draw.rng
        self.skill = skill
        self.box = toolbox.draw(self.rng, roles, agent_share=agent_share)
        self.shapes = shapes.draw(self.rng)
        self.messages: list[dict[str, Any]] = []
        self.folder = _folder(self.rng)
        self._files = MemoryFolder()
        self._commands = GivenOutcome()
        self._agent: AgentResults | None = None
        self.hints = hints_in("en")
        self._called: chat.Call = ("", {})

    @property
    def num_sources(self) -> int:
        """How many sources our agent has numbered, of which the last is the last one shown."""
        return self._agent.num_sources if self._agent else 0

    def _system(self, task: str, language: str | None) -> str:
        if self._agent and self.rng.random() < 0.85:
            names = {tool["function"]["name"] for tool in self.box.offered}
            return system_prompt(task, Path(self.folder), names, language)
        return vocabulary.system_prompt(self.rng) if self.rng.random() < 0.6 else ""

    def agent_role(self, role: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """A further role of the agent's tools."""
        tool, names, fixed = definitions.agent()["roles"][role]
        return tool, names, fixed

    def say(self, english: str, chinese: str) -> str:
        return self.draw.say(english, chinese)

    def user(self, text: str, language: str | None = None) -> None:
        """The first one is the task, in whose language the agent speaks, or in this one."""
        if not self.messages:
            self._begin(text, language)
        self.messages.append(chat.user(text))
        if self._agent:
            self._agent.told()

    def _begin(self, task: str, language: str | None) -> None:
        self.hints = hints_in(language) if language else hints_for(task)
        if self.box.is_agent:
            self._agent = AgentResults(self._files, self._commands, self.hints)
        if prompt := self._system(task, language):
            self.messages.append({"role": "system", "content": prompt})

    def call(self, thinking: str, role: str, *, given: bool = False, **arguments: Any) -> None:
        self._called = self.box.call(role, **arguments)
        message = chat.calling(thinking, self._called)
        if given:
            message["given"] = True
        self.messages.append(message)

    def result(self, text: str) -> None:
        """Of the last call, as it is."""
        self.messages.append({"role": "tool", "content": text})

    def agent_result(self, effect: Effect, result: Result) -> bool:
        """Shown as our agent shows it, if these are its tools."""
        if self._agent:
            self.result(self._agent.of_result(*self._called, effect, result))
        return self._agent is not None

    def ran(
        self, output: str, exit_code: int, *, to_stderr: bool = False, warnings: str = ""
    ) -> None:
        """A program ended. Warnings go to stderr besides, where the agent keeps the two apart."""
        if self._agent:
            both = ("", output) if to_stderr else (output, warnings)
            self._commands.next = exited(*both, exit_code)
            self.result(self._agent.call(*self._called))
        else:
            self.result(self.shapes.ran(output, exit_code, to_stderr=to_stderr))

    def timed_out(self) -> None:
        if self._agent:
            limit = self.rng.choice((Ending.WALL_TIME, Ending.CPU_TIME))
            self._commands.next = timed_out(limit, 30 + self.rng.randint(0, 2) / 10)
            self.result(self._agent.call(*self._called))
        else:
            self.result(self.shapes.timed_out(self.rng))

    def viewed(self, path: str, text: str) -> None:
        self._of_file(path, text, lambda: self.shapes.viewed(text))

    def missing(self, path: str) -> None:
        self._of_file(path, None, lambda: self.shapes.no_file(path))

    def edited(self, path: str, before: str, after: str) -> None:
        """The file was `before`, and the call has made it `after`."""
        fault = syntax_error(path, after.encode())
        self._of_file(path, before, lambda: self.shapes.edited(path, fault))

    def not_matched(self, path: str, text: str) -> None:
        """The file is `text`, in which the old text does not occur."""
        self._of_file(path, text, lambda: self.shapes.no_match(path))

    def written(self, path: str, before: str | None = None) -> None:
        """A file was made, or what was there is replaced or appended to."""
        self._of_file(path, before, lambda: self.shapes.written(path))

    def _of_file(self, path: str, text: str | None, other: Callable[[], str]) -> None:
        if self._agent is None:
            self.result(other())
            return
        self._files.files = {} if text is None else {path: text}
        self.result(self._agent.call(*self._called))

    def noted(self) -> None:
        """A plan, which only our agent keeps."""
        assert self._agent
        self.result(self._agent.call(*self._called))

    def searched(self, found: str) -> None:
        self._commands.next = exited(f"{found}\n", "", 0)
        self.result(self._agent.call(*self._called) if self._agent else found)

    def answer(self, thinking: str, content: str) -> None:
        self.messages.append(chat.assistant(thinking, content))

    def told(self) -> Conversation:
        """The finished conversation."""
        if self.draw.split is Split.TRAIN and self.rng.random() < THOUGHTLESS_SHARE:
            self._drop_thinking()
        return Conversation(
            skill=self.skill,
            language=self.draw.language,
            messages=self.messages,
            tools=self.box.offered,
        )

    def _drop_thinking(self) -> None:
        """Earlier steps as clients that drop thinking send them: read, not learnt."""
        turns = [m for m in self.messages if m["role"] == "assistant"]
        for message in turns[:-1]:
            message["given"] = True
            message["reasoning_content"] = ""


PLACES = (
    "/work",
    "/tmp/{}",
    "/home/user/{}",
    "/home/anna/src/{}",
    "/root/{}",
    "/srv/{}",
    "/workspace",
)
FOLDERS = ("project", "demo", "task", "code", "app", "shop", "site", "try", "tool", "run1")


def _folder(rng: random.Random) -> str:
    """Where a conversation's work folder lies."""
    name = rng.choice(FOLDERS) + rng.choice(("", "", str(rng.randint(1, 99))))
    return rng.choice(PLACES).format(name)
