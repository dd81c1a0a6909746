"""What does the model do when a repair does not go straight? Each kind begins with a mishap."""

from dataclasses import replace

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.programs import project, pytest_text
from demo_model.programs.catalogue import Pair
from demo_model.programs.project import Bug, Project, RedrawError, redrawn
from demo_model.tasks import debugging, repair, words
from demo_model.tasks.story import Story
from demo_model.toolboxes.agent_results import exited
from expertmesh.agent.loop.verify import failure_message

KINDS = (
    "no_match", "second_bug", "bad_edit", "endless", "wrong_file", "check_failed", "refused",
    "wrong_first", "syntax", "cut",
)  # fmt: skip


def make(draw: Draw) -> Conversation:
    return redrawn(lambda: _make(draw, draw.rng.choice(KINDS)))


def _make(draw: Draw, kind: str) -> Conversation:
    story = Story(draw, "recovery", ("run", "view", "edit"))
    made = repair.draw_project(
        draw,
        bugs=2 if kind == "second_bug" else 1,
        breaks={"syntax": True, "endless": False, "second_bug": False, "bad_edit": False}.get(kind),
    )
    if kind == "endless":
        made = _endless(draw)
    repair.ask(story, made)
    if kind == "check_failed":
        return _check_failed(story, made)
    outcome = repair.run_tests(story, made, first=True)
    if kind == "cut":
        _cut(story)
    if kind == "wrong_file":
        _wrong_file(story, made, outcome)
    repair.view(story, made, outcome)
    bug = repair.cause(made, outcome)
    if kind == "no_match":
        _no_match(story, made, bug)
    elif kind == "refused":
        return _refused(story, made, bug)
    elif kind == "bad_edit":
        made, bug = _bad_edit(story, made, bug)
    elif kind == "wrong_first":
        made, bug = _wrong_first(story, made, bug)
    return _to_the_end(story, made, bug)


def _to_the_end(story: Story, made: Project, bug: Bug) -> Conversation:
    """Edit, run, and again for each bug that is left."""
    mended = [bug]
    made = repair.edit(story, made, bug)
    while not (outcome := repair.run_tests(story, made, first=False)).passed:
        if not made.bugs:
            raise RedrawError
        made, bug = repair.mend(story, made, outcome)
        mended.append(bug)
    repair.finish(story, made, mended)
    return story.told()


def _endless(draw: Draw) -> Project:
    """A project one of whose tests never ends, where this side of the line has such pairs."""
    for _ in range(200):
        pool = repair.pairs_of(draw).part("endless", lambda pair: pair.endless)
        if not pool.pairs:
            break
        made = project.make(
            draw.rng,
            (pool.pick(draw.rng),),
            held_out_names=draw.split is Split.OPERANDS,
            others=draw.rng.choice((0, 1)),
            documented=draw.rng.random() < 0.5,
        )
        if pytest_text.run(made, draw.rng).endless:
            return made
    return repair.draw_project(draw)


def _cut(story: Story) -> None:
    """An answer that was cut off; the agent says so, and the model goes on."""
    message = chat.assistant("", story.say("I look at", "我看看"))
    message["given"] = True
    story.messages.append(message)
    story.user(story.hints.cut)


def _wrong_file(story: Story, made: Project, outcome: pytest_text.Outcome) -> None:
    """A file that is not there; then the names of those that are."""
    wrong = story.rng.choice((f"src/{made.file}", f"{made.module}s.py", f"lib/{made.file}"))
    failed = words.what_failed(story.draw, outcome, made.file)
    story.call(failed, "view", given=True, path=wrong)
    story.missing(wrong)
    thinking = story.say("No such file. I list the files.", "没有这个文件，我列出文件。")
    story.call(thinking, "run", command="ls")
    files = sorted((made.file, made.test_file, *story.rng.sample(("README.md", "notes.txt"), 1)))
    story.ran("\n".join(files) + "\n", 0)


def _no_match(story: Story, made: Project, bug: Bug) -> None:
    """An edit whose old text is not in the file; then the right line is copied again."""
    old, new = repair.texts_of(made, bug)
    wrong = story.rng.choice(
        (old.replace(" ", "  ", 1), old + " # wrong", f"{old};", old[:-1] + "x")
    )
    if wrong in made.source or wrong == old:
        wrong = old + "  # here"
    story.call(
        words.line_is_wrong(story.draw, bug), "edit", given=True, path=made.file, old=wrong, new=new
    )
    story.not_matched(made.file, made.source)
    thinking = story.say(
        f"The old text did not match. I read {made.file} again.",
        f"旧文本不匹配，我再看{made.file}。",
    )
    story.call(thinking, "view", path=made.file)
    story.viewed(made.file, made.source)


def _bad_edit(story: Story, made: Project, bug: Bug) -> tuple[Project, Bug]:
    """An edit after which the file does not parse; the same line is put right."""
    old, new = repair.texts_of(made, bug)
    spoilt = _spoilt(bug.right)
    text = new.replace(bug.right.strip(), spoilt.strip())
    story.call(
        words.line_is_wrong(story.draw, bug), "edit", given=True, path=made.file, old=old, new=text
    )
    lines = made.source.split("\n")
    lines[bug.line - 1] = spoilt
    broken = replace(made, source="\n".join(lines))
    story.edited(made.file, made.source, broken.source)
    return broken, replace(bug, wrong=spoilt, pair=_syntax(bug))


def _spoilt(line: str) -> str:
    """The line, no longer valid."""
    if line.endswith(":"):
        return line[:-1]
    return line[:-1] if line.endswith((")", "]")) else line + ")"


def _syntax(bug: Bug) -> Pair:
    mutation = replace(bug.pair.mutation, kind="syntax")
    return replace(bug.pair, mutation=mutation)


def _wrong_first(story: Story, made: Project, bug: Bug) -> tuple[Project, Bug]:
    """An edit that helps nothing, as the tests show; then the line is put right."""
    old, new = repair.texts_of(made, bug)
    indent = bug.wrong[: len(bug.wrong) - len(bug.wrong.lstrip())]
    name = made.bugs[0].function
    other = indent + story.rng.choice(("pass", "return None", f"return {name}", "assert False"))
    if bug.wrong.strip().startswith(("def ", "if ", "for ", "while ", "elif ", "else")):
        other = (
            bug.wrong.rstrip(":") + ":" if not bug.wrong.endswith(":") else bug.wrong[:-1] + " :"
        )
    lines = made.source.split("\n")
    lines[bug.line - 1] = other
    changed = replace(made, source="\n".join(lines))
    text = new.replace(bug.right.strip(), other.strip())
    if text == old or pytest_text.run(changed, story.rng, story.folder).passed:
        raise RedrawError
    story.call(
        words.line_is_wrong(story.draw, bug), "edit", given=True, path=made.file, old=old, new=text
    )
    story.edited(made.file, made.source, changed.source)
    outcome = repair.run_tests(story, changed, first=False)
    repair.view(story, changed, outcome)
    return changed, replace(bug, wrong=other)


def _refused(story: Story, made: Project, bug: Bug) -> Conversation:
    """The user does not allow the edit: say what would be needed."""
    old, new = repair.texts_of(made, bug)
    story.call(words.line_is_wrong(story.draw, bug), "edit", path=made.file, old=old, new=new)
    story.result(story.hints.refused if story.box.is_agent else "Error: refused by the user")
    wrong, right = bug.wrong.strip(), bug.right.strip()
    story.answer(
        story.say("The user did not allow the edit.", "用户不允许修改。"),
        story.say(
            f"I did not change {made.file}, since the edit was not allowed. Line {bug.line} is "
            f"`{wrong}` and should be `{right}`.",
            f"修改未获允许，{made.file}没有变。第{bug.line}行是`{wrong}`，应为`{right}`。",
        ),
    )
    return story.told()


def _check_failed(story: Story, made: Project) -> Conversation:
    """The model stopped too early; the agent's check fails, and the user's next words say so."""
    early = chat.assistant("", story.say("Done.", "完成了。"))
    early["given"] = True
    story.messages.append(early)
    outcome = pytest_text.run(made, story.rng, story.folder)
    if outcome.endless:
        raise RedrawError
    command = story.rng.choice(("pytest -q", "python -m pytest -q", "python3 -m pytest -q"))
    check = debugging.checked(command, exited(outcome.text, "", outcome.exit_code))
    story.user(failure_message(check, check.text, story.hints))
    repair.view(story, made, outcome)
    return _to_the_end(story, made, repair.cause(made, outcome))
