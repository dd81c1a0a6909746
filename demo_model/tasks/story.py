"""How is one task with its calls and results written down?"""

import random
from typing import Any

from demo_model import chat, vocabulary
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.toolboxes import definitions, shapes, toolbox

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
        self.shapes = shapes.draw(self.rng, self.box)
        self.messages: list[dict[str, Any]] = []
        self.sources = 0
        self.folder = _folder(self.rng)
        prompt = self._system()
        if prompt:
            self.messages.append({"role": "system", "content": prompt})

    def _system(self) -> str:
        if self.box.is_agent:
            names = {tool["function"]["name"] for tool in self.box.offered}
            if self.rng.random() < 0.85:
                return definitions.system(self.draw.language, self.folder, names)
        return vocabulary.system_prompt(self.rng) if self.rng.random() < 0.6 else ""

    def agent_role(self, role: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """A further role of the agent's tools."""
        tool, names, fixed = definitions.agent()["roles"][role]
        return tool, names, fixed

    def say(self, english: str, chinese: str) -> str:
        return self.draw.say(english, chinese)

    def user(self, text: str) -> None:
        self.messages.append(chat.user(text))

    def call(self, thinking: str, role: str, *, given: bool = False, **arguments: Any) -> None:
        message = chat.calling(thinking, self.box.call(role, **arguments))
        if given:
            message["given"] = True
        self.messages.append(message)

    def result(self, text: str, source: str = "", *, unnamed: bool = False) -> None:
        """`source`: where the text comes from, which the agent numbers and names below it.

        Commands are numbered, too, but not named (`unnamed`).
        """
        if self.box.is_agent and (source or unnamed):
            self.sources += 1
            text = f"{text}\n[{self.sources}] {source}" if source else text
        self.messages.append({"role": "tool", "content": text})

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
