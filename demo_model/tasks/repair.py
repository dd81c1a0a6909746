"""How does the model make failing tests pass? Run, read, edit, run again, say what was wrong."""

from dataclasses import replace

from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.programs import catalogue, project, pytest_text
from demo_model.programs.catalogue import Pair, Pool
from demo_model.programs.project import Bug, Project, RedrawError, redrawn
from demo_model.programs.pytest_text import Outcome
from demo_model.tasks import debugging, words
from demo_model.tasks.story import Story
from demo_model.toolboxes.agent_results import exited

CHATTER = (
    "PytestDeprecationWarning: The configuration option is unset.",
    "warning: cache could not be written",
    "/usr/lib/python3/site-packages/x.py:3: DeprecationWarning: use another module\n  import imp",
)  # fmt: skip
PLAN_SHARE = 0.12
STEPS = (
    ("run the tests", "运行测试"),
    ("read the module", "读模块"),
    ("mend the line", "改正那一行"),
    ("run the tests again", "再运行测试"),
)
TEST_COMMAND = "python -m pytest -q"
ASSISTANT_SHARE = 0.15
"""Of the repairs those that `expertmesh dev debug` asks for."""


def pairs_of(draw: Draw) -> Pool:
    """The pairs on this split's side."""
    if draw.split is Split.TEMPLATES:
        return catalogue.pairs_of_held_out_templates()
    return catalogue.held_out_pairs() if draw.split is Split.OPERANDS else catalogue.trained()


def draw_project(draw: Draw, *, bugs: int = 1, breaks: bool | None = None) -> Project:
    """A project whose wrong lines are on this split's side; `breaks`: whether by bad syntax."""
    rng = draw.rng
    pool = pairs_of(draw)
    if breaks is not None:
        pool = pool.part(f"breaks {breaks}", lambda pair: pair.breaks == breaks)
    chosen: list[Pair] = []
    while len(chosen) < bugs:
        pair = pool.pick(rng)
        if all(pair.template is not other.template for other in chosen):
            chosen.append(pair)
    return project.make(
        rng,
        tuple(chosen),
        held_out_names=draw.split is Split.OPERANDS,
        others=rng.choice((0, 0, 1, 1, 2)) if bugs == 1 else rng.choice((0, 1)),
        documented=rng.random() < 0.5,
    )


def make(draw: Draw) -> Conversation:
    """A repair without surprises."""
    return redrawn(lambda: _make(draw))


def _make(draw: Draw) -> Conversation:
    if draw.split is not Split.PHRASINGS and draw.rng.random() < ASSISTANT_SHARE:
        return _debugged(draw)
    story = Story(draw, "repair", ("run", "view", "edit"))
    made = draw_project(draw)
    ask(story, made)
    planned = _can_plan(story) and draw.rng.random() < PLAN_SHARE
    if planned:
        story.messages[-1]["content"] += story.say(" Plan first.", "先列计划。")
        _plan(story, done=0)
    outcome = run_tests(story, made, first=True)
    made, mended = mend(story, made, outcome)
    outcome = run_tests(story, made, first=False)
    assert outcome.passed
    if planned:
        _plan(story, done=len(STEPS))
    finish(story, made, [mended])
    return story.told()


def _debugged(draw: Draw) -> Conversation:
    """`expertmesh dev debug` has run the tests already, and shows what they printed."""
    story = Story(draw, "repair", ("run", "view", "edit"), agent_share=1.0)
    made = draw_project(draw)
    outcome = pytest_text.run(made, story.rng, story.folder)
    if outcome.endless:
        raise RedrawError
    command = draw.rng.choice(("pytest -q", TEST_COMMAND, "python3 -m pytest -q"))
    printed = exited(outcome.text, "", outcome.exit_code)
    debugging.ask(
        story, command, printed, {made.file: made.source, made.test_file: made.test_source}
    )
    made, mended = mend(story, made, outcome)
    outcome = run_tests(story, made, first=False)
    assert outcome.passed
    finish(story, made, [mended])
    return story.told()


def _can_plan(story: Story) -> bool:
    offered = {tool["function"]["name"] for tool in story.box.offered}
    return story.box.is_agent and "update_plan" in offered


def _plan(story: Story, *, done: int) -> None:
    """The plan is written down before the first step, and ticked off after the last."""
    story.box.calls["plan"] = story.agent_role("plan")
    steps = [
        {"step": story.say(*step), "status": "done" if number < done else "pending"}
        for number, step in enumerate(STEPS)
    ]
    if done == 0:
        steps[0]["status"] = "in_progress"
        thinking = story.say("The user wants a plan.", "用户要计划。")
    else:
        thinking = story.say("All steps are done.", "每一步都完成了。")
    story.call(thinking, "plan", steps=steps)
    story.noted()


def ask(story: Story, made: Project) -> str:
    """The user's task; returns the command that runs the tests."""
    _, template = story.draw.phrase("repair")
    story.user(
        template.format(file=made.file, test_file=made.test_file, function=made.bugs[0].function)
    )
    return TEST_COMMAND


def run_tests(story: Story, made: Project, *, first: bool) -> Outcome:
    """A call that runs the tests, and its result."""
    outcome = pytest_text.run(made, story.rng, story.folder)
    if first:
        thinking = story.say("I run the tests first.", "先运行测试。")
    else:
        thinking = story.say("Edited. I run the tests again.", "改好了，再运行测试。")
    story.call(thinking, "run", command=TEST_COMMAND)
    show_outcome(story, outcome)
    return outcome


def show_outcome(story: Story, outcome: Outcome) -> None:
    if outcome.endless:
        story.timed_out()
    else:
        warnings = story.rng.choice(CHATTER) if story.rng.random() < 0.1 else ""
        story.ran(outcome.text, outcome.exit_code, warnings=warnings)


def mend(story: Story, made: Project, outcome: Outcome) -> tuple[Project, Bug]:
    """Read the module and put its wrong line right; returns the project then, and that bug."""
    view(story, made, outcome)
    bug = cause(made, outcome)
    return edit(story, made, bug), bug


def view(story: Story, made: Project, outcome: Outcome) -> None:
    failed = words.what_failed(story.draw, outcome, made.file)
    thinking = failed + story.say(f" I read {made.file}.", f"我看{made.file}。")
    story.call(thinking, "view", path=made.file)
    story.viewed(made.file, made.source)


def cause(made: Project, outcome: Outcome) -> Bug:
    """The bug behind the first failure."""
    if outcome.failures:
        function = outcome.failures[0].check.function
        return next(bug for bug in made.bugs if bug.function == function)
    wanted = [b for b in made.bugs if b.pair.breaks == outcome.broken]
    return (wanted or list(made.bugs))[0]


def edit(story: Story, made: Project, bug: Bug) -> Project:
    """The edit that puts the bug right, by text that occurs once."""
    old, new = texts_of(made, bug)
    thinking = words.line_is_wrong(story.draw, bug)
    story.call(thinking, "edit", path=made.file, old=old, new=new)
    mended = made.mended(bug)
    story.edited(made.file, made.source, mended.source)
    return mended


def texts_of(made: Project, bug: Bug) -> tuple[str, str]:
    """(old, new): the wrong line without its indentation where that is unique, else with lines
    before it."""
    lines = made.source.split("\n")
    top = bug.line - 1
    old, new = bug.wrong.strip(), bug.right.strip()
    if bug.pair.mutation.kind == "indentation":
        top, old, new = (
            top - 1,
            f"{lines[top - 1].strip()}\n{bug.wrong}",
            f"{lines[top - 1].strip()}\n{bug.right}",
        )
    while made.source.count(old) != 1:
        indent = lines[top][: len(lines[top]) - len(lines[top].lstrip())]
        top -= 1
        old = f"{lines[top].strip()}\n{indent}{old}"
        new_indent = (
            indent if top + 2 != bug.line else bug.right[: len(bug.right) - len(bug.right.lstrip())]
        )
        new = f"{lines[top].strip()}\n{new_indent}{new}"
    return old, new


def finish(story: Story, made: Project, mended: list[Bug]) -> None:
    count = len(made.tests)
    story.answer(words.passed(story.draw, count), words.fixed(story.draw, mended, made.file, count))


def replaced(made: Project, source: str) -> Project:
    """The project with another text of its module."""
    return replace(made, source=source)
