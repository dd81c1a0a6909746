"""What is trained on is what `expertmesh agent` sends: prompts, tools and results."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from demo_model.toolboxes import definitions
from expertmesh.agent.prompts import system_prompt
from expertmesh.agent.toolbox import OWN_TOOLS, Materials, make_registry
from expertmesh.agent.tools.browser import BrowserTool
from expertmesh.agent.tools.edit import EditError, replaced_once
from expertmesh.agent.tools.fetch import Fetch
from expertmesh.agent.tools.web_search import WebSearch
from expertmesh.agent.verify import Check, failure_message

AGENT = definitions.agent()


@pytest.mark.parametrize(("language", "task"), [("en", "Fix it."), ("zh", "请修好它。")])
def test_the_system_prompts_are_the_agents(language: str, task: str) -> None:
    for tools in ({"shell"}, {"shell", "file_editor"}, set(OWN_TOOLS)):
        found = definitions.system(language, "/x", tools)
        assert found == system_prompt(task, Path("/x"), tools)


def test_the_tools_are_the_agents() -> None:
    anything = MagicMock()
    registry = make_registry(
        Materials(
            folder=anything,
            sandbox=anything,
            outputs=Path(),
            before_change=anything,
            on_output=anything,
            on_plan=anything,
        ),
        OWN_TOOLS,
        [WebSearch(anything), Fetch(anything), BrowserTool(anything, anything)],
    )
    trained = {tool["function"]["name"]: tool for tool in AGENT["tools"]}
    assert tuple(AGENT["own"]) == OWN_TOOLS
    for tool in registry.definitions():
        name = tool["function"]["name"]
        if name == "code_runner":  # it names the languages of this machine
            tool["function"]["description"] = trained[name]["function"]["description"]
            languages = tool["function"]["parameters"]["properties"]["language"]
            languages["enum"] = ["python"]
        assert tool == trained[name]


def test_messages_of_the_agent_are_its_own() -> None:
    shapes = AGENT["shapes"]
    check = Check("pytest -q", False, "exit code 1\nF", 0.1)
    told = shapes["check_failed"].format(command="pytest -q", text="exit code 1\nF")
    assert told == failure_message(check, check.text)
    with pytest.raises(EditError) as raised:
        replaced_once("abc", "xyz", "q", "m.py")
    assert str(raised.value) == shapes["no_match"].format(path="m.py") + shapes["look"]
