"""What does the model do with a script that crashes: run it, read it, mend it, run it again? And
what does it answer to a traceback alone?"""

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.programs import naming, project, values
from demo_model.programs.project import Bug, Project
from demo_model.programs.templates import fill
from demo_model.tasks import debugging, repair, scripts, words
from demo_model.tasks.review import shown
from demo_model.tasks.scripts import Run
from demo_model.tasks.story import Story
from demo_model.toolboxes import toolbox
from demo_model.toolboxes.agent_results import exited
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.reviewing.passages import fenced, of_text

ASSISTANT_SHARE = 0.4
KINDS = (
    "name",
    "syntax",
    "wrong_call",
    "index",
    "operator",
    "off_by_one",
    "initial_value",
    "missing_return",
)


def draw_script(draw: Draw, folder: str) -> tuple[Project, Run]:
    """A script whose one wrong line makes it crash, and how it ends."""
    return project.redrawn(lambda: _draw_script(draw, folder))


def _draw_script(draw: Draw, folder: str) -> tuple[Project, Run]:
    """Raises RedrawError unless the right script runs and the wrong one crashes."""
    rng = draw.rng
    pool = repair.pairs_of(draw).part("crashes", lambda pair: pair.mutation.kind in KINDS)
    pair = pool.pick(rng)
    held_out = draw.split is Split.OPERANDS
    names = naming.names_for(rng, pair.template, held_out=held_out, taken=set())
    good = [fill(line, names) for line in pair.template.lines]
    documented = rng.random() < 0.3
    lines = project.with_doc(good, pair.template, names, documented)
    calls = [
        f"print({names['f']}({', '.join(map(project.literal, arguments))}))"
        for arguments in (
            values.draw(rng, pair.template.arguments) for _ in range(rng.choice((1, 1, 2)))
        )
    ]
    right = "\n".join([*lines, "", "", *calls]) + "\n"
    index = pair.mutation.line + (documented and pair.mutation.line > 0)
    wrong_line = fill(pair.mutation.wrong, names)
    wrong = "\n".join([*lines[:index], wrong_line, *lines[index + 1 :], "", "", *calls]) + "\n"
    module = naming.pick(rng, naming.MODULES, held_out=held_out)
    path = f"{folder}/{module}.py"
    if scripts.run(right, path).error:
        raise project.RedrawError
    run = scripts.run(wrong, path)
    if not run.error or run.endless:
        raise project.RedrawError
    bug = Bug(pair=pair, function=names["f"], line=index + 1, right=lines[index], wrong=wrong_line)
    made = Project(
        module=module,
        right=right,
        source=wrong,
        bugs=(bug,),
        tests=(),
        functions=(names["f"],),
    )
    return made, run


def make(draw: Draw) -> Conversation:
    """The loop with tools."""
    # held-out wordings are those of users: our own assistant has one
    by_assistant = draw.split is not Split.PHRASINGS and draw.rng.random() < ASSISTANT_SHARE
    share = 1.0 if by_assistant else toolbox.AGENT_SHARE
    story = Story(draw, "debug", ("run", "view", "edit"), agent_share=share)
    made, run = draw_script(draw, story.folder)
    command = f"python {made.file}"
    if by_assistant:
        outcome = exited("", run.output, 1)
        debugging.ask(story, command, outcome, {made.file: made.source})
    else:
        _, template = draw.phrase("debug")
        story.user(template.format(file=made.file))
        thinking = story.say(f"I run {made.file}.", f"我运行{made.file}。")
        story.call(thinking, "run", command=command)
        story.ran(run.output, 1, to_stderr=True)
    last = run.output.rstrip("\n").splitlines()[-1]
    thinking = story.say(f"{last} I read {made.file}.", f"{last} 我看{made.file}。")
    story.call(thinking, "view", path=made.file)
    story.viewed(made.file, made.source)
    bug = made.bugs[0]
    mended = repair.edit(story, made, bug)
    again = story.say("Edited. I run it again.", "改好了，再运行。")
    story.call(again, "run", command=command)
    done = scripts.run(mended.source, f"{story.folder}/{made.file}")
    assert done.error is None
    story.ran(done.output, 0)
    printed = done.output.rstrip("\n")
    story.answer(
        story.say("It runs.", "能运行了。"),
        words.fixed(draw, [bug], made.file, 0).removesuffix(words.passed(draw, 0)).rstrip()
        + story.say(f" It prints:\n{printed}", f"输出：\n{printed}"),
    )
    return story.told()


def explain(draw: Draw) -> Conversation:
    """Code and traceback in one message; cause and corrected line in the answer."""
    made, run = draw_script(draw, draw.rng.choice(("/work", "/home/user/app", "/tmp/x1")))
    bug = made.bugs[0]
    error = run.output.rstrip("\n").splitlines()[-1]
    if draw.split is not Split.PHRASINGS and draw.rng.random() < ASSISTANT_SHARE:
        block = of_text(made.source, "code.py").block()
        output = fenced(run.output.rstrip())
        asked = prompt("explain_error", draw.language, error=output, code=f"\n\n{block}")
    else:
        asked = _asked_to_explain(draw, made, run)
    thinking = f"{error}\n{words.line_is_wrong(draw, bug)}"
    kind = draw.say(*words.MESSAGES[bug.pair.mutation.kind])
    right = bug.right.strip() if bug.pair.mutation.kind != "indentation" else bug.right
    answer = draw.say(
        f"Cause: {error}\nLine {bug.line}: {kind}.\nFix: `{right}`",
        f"原因：{error}\n第{bug.line}行：{kind}。\n改为：`{right}`",
    )
    return Conversation(
        skill="explain_error",
        language=draw.language,
        messages=[chat.user(asked), chat.assistant(thinking, answer)],
    )


def _asked_to_explain(draw: Draw, made: Project, run: Run) -> str:
    """As users ask."""
    _, template = draw.phrase("explain_error")
    parts = [shown(draw, made.file, made.source), f"```\n{run.output.rstrip()}\n```"]
    if draw.rng.random() < 0.3:
        parts.reverse()
    return "\n\n".join([template.format(file=made.file), *parts])
