"""What is trained on is what `expertmesh agent` sends: prompts, tools and results."""

import json
import random
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from demo_model.draw import Draw
from demo_model.tasks import files, recovery, repair
from demo_model.tasks.families import FAMILIES
from demo_model.tasks.story import Story
from demo_model.toolboxes import definitions
from demo_model.toolboxes.agent_results import AgentResults, GivenOutcome, MemoryFolder, exited
from expertmesh.agent.loop.approval import Approval
from expertmesh.agent.loop.calls import Calls
from expertmesh.agent.loop.evidence import Ledger
from expertmesh.agent.loop.hints import hints_in
from expertmesh.agent.loop.recovery import Recovery
from expertmesh.agent.prompts import system_prompt
from expertmesh.agent.record.masks import Masks
from expertmesh.agent.record.run_folder import new_run
from expertmesh.agent.record.trace import Trace
from expertmesh.agent.toolbox import OWN_TOOLS, Materials, make_registry
from expertmesh.agent.tools.browser import BrowserTool
from expertmesh.agent.tools.fetch import Fetch, shown_part
from expertmesh.agent.tools.file_editor import FileEditor
from expertmesh.agent.tools.registry import Registry
from expertmesh.agent.tools.shell import Shell
from expertmesh.agent.tools.web_search import WebSearch
from expertmesh.agent.web.html_text import Page
from expertmesh.agent.web.search_backends import Hit

AGENT = definitions.agent()


@pytest.mark.parametrize(("language", "task"), [("en", "Fix it."), ("zh", "修好test_my_tables.py")])
def test_the_system_prompt_is_the_agents_for_this_task(language: str, task: str) -> None:
    seen = 0
    for seed in range(30):
        draw = Draw(rng=random.Random(seed), language=language)
        story = Story(draw, "repair", ("run",), agent_share=1.0)
        story.user(task)
        names = {tool["function"]["name"] for tool in story.box.offered}
        prompt = system_prompt(task, Path(story.folder), names)
        seen += story.messages[0] == {"role": "system", "content": prompt}
    assert seen > 15


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


EDIT = {"action": "edit", "file_path": "m.py", "old_text": "a = 1", "new_text": "a = 2"}
VIEW = {"action": "view", "file_path": "m.py"}
RUN = {"command": "pytest -q"}


async def test_results_are_shown_as_the_agent_shows_them(tmp_path: Path) -> None:
    """Numbers of sources, and the note at a call that was made before."""
    folder, sandbox = MemoryFolder(), GivenOutcome()
    folder.files["m.py"] = "a = 1\n"
    ours = AgentResults(folder, sandbox, hints_in("en"))
    theirs = Calls(
        Registry([FileEditor(folder), Shell(sandbox)]),
        approval=Approval("all", None),
        recovery=Recovery(),
        ledger=Ledger(),
        trace=Trace(new_run(tmp_path), Masks()),
    )
    sandbox.next = exited("F\n", "", 1)
    made: list[tuple[str, dict[str, Any]]] = [
        ("file_editor", VIEW), ("shell", RUN), ("file_editor", EDIT | {"old_text": "b = 1"}),
        ("file_editor", VIEW), ("file_editor", EDIT | {"old_text": "a  =  1"}),
        ("file_editor", EDIT), ("file_editor", VIEW), ("shell", RUN),
    ]  # fmt: skip
    for step, (name, arguments) in enumerate(made):
        before = dict(folder.files)
        function = {"name": name, "arguments": json.dumps(arguments)}
        wanted, _ = await theirs.make(step, {"id": "1", "type": "function", "function": function})
        folder.files = before
        assert ours.call(name, arguments) == wanted


async def test_found_pages_are_shown_as_the_agents_tools_show_them() -> None:
    class Backend:
        async def search(self, query: str, limit: int) -> list[Hit]:
            return [Hit("A", "https://x.test/a", "about A"), Hit("B", "https://x.test/b", "about")]

    rng = random.Random(4)
    seen = 0
    for _ in range(60):
        made = FAMILIES["research"](Draw(rng=rng, language="en"))
        told = [m["content"] for m in made.messages if m["role"] == "tool"]
        if not any("text from the web" in text for text in told):
            continue
        seen += 1
        marks = told[0].splitlines()
        found = await WebSearch(Backend()).call({"query": "q"})
        assert found.text.splitlines()[0][14:] == marks[0][14:]
        url = next(line for line in told[1].splitlines() if line.startswith("URL: "))[5:]
        inner = told[1].split("\n\n", 1)[1].rsplit("\n[", 2)[0]
        title = told[1].splitlines()[2].removeprefix("Title: ")
        page = shown_part(Page(title=title, text=inner, cut=False), url, 0)
        assert told[1].startswith(f"{page.text}\n[")
    assert seen > 20


def test_an_edit_that_fails_is_explained_and_a_repeated_view_is_noted() -> None:
    rng = random.Random(6)
    told = []
    for _ in range(60):
        made = recovery._make(Draw(rng=rng, language="en"), "no_match")
        told += [m["content"] for m in made.messages if m["role"] == "tool"]
    assert any("differs from it in white space only" in text for text in told)
    assert any("view the file to see what is there" in text for text in told)
    assert any("\nNote: you made this very call before" in text for text in told)


def test_edits_of_a_rename_leave_valid_modules() -> None:
    for seed in range(40):
        made = files.rename(Draw(rng=random.Random(seed), language="en"))
        assert not any("not valid" in m["content"] for m in made.messages if m["role"] == "tool")


def test_plans_are_noted_by_the_agents_tool() -> None:
    rng = random.Random(0)
    told = [
        m["content"]
        for _ in range(120)
        for m in repair.make(Draw(rng=rng, language="en")).messages
        if m["role"] == "tool"
    ]
    assert "noted: 0 of 4 steps are done" in told
    assert "noted: 4 of 4 steps are done" in told
