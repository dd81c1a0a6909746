"""What does a code review find? Findings as JSON, or an empty list for code without mistakes."""

import difflib
import json
import random
from typing import Any

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.programs.project import Bug, Project, redrawn
from demo_model.tasks import repair, words
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.reviewing.passages import Passage, of_diff, of_text

CLEAN_SHARE = 0.3
ASSISTANT_SHARE = 0.6
SYSTEMS_EN = (
    "You review code. Answer with a JSON array of findings, each with line, kind, severity and "
    "message; [] if there is nothing to report.",
    "Review the code. Output only JSON: a list of objects with the keys line, kind, severity, "
    "message.",
    'You are a code reviewer. Report mistakes as JSON: [{"line": ..., "kind": ..., "severity": '
    '..., "message": ...}]. Report nothing that is right.',
)
SYSTEMS_ZH = (
    "你审查代码。用JSON数组回答，每项有line、kind、severity和message；没有问题就回答[]。",
    "审查代码，只输出JSON：对象列表，键为line、kind、severity、message。",
    '你是代码审查员。用JSON报告错误：[{"line": ..., "kind": ..., "severity": ..., "message": '
    "...}]。对的地方不要报告。",
)
WISH_EN = ' Answer as a JSON array of objects with "line", "kind", "severity" and "message".'
WISH_ZH = "用JSON数组回答，每个对象有“line”、“kind”、“severity”和“message”。"
DIFF_SHARE = 0.35
"""Of the reviews that `expertmesh dev review` asks for."""
FOCI = (
    ("Look for off-by-one errors above all.", "重点看差一错误。"),
    ("Is every value returned?", "每个值都返回了吗？"),
    ("Is anything wrong at the borders?", "边界情况有问题吗？"),
    ("Will it crash?", "会崩溃吗？"),
)
IN_SOME_CASES = ("comparison", "off_by_one", "initial_value", "condition", "index")
"""Kinds that a review calls a warning; with the others all results are wrong, or none comes."""


def make(draw: Draw) -> Conversation:
    return redrawn(lambda: _make(draw))


def _make(draw: Draw) -> Conversation:
    rng = draw.rng
    clean = rng.random() < CLEAN_SHARE
    made = repair.draw_project(draw, bugs=1 if clean else rng.choice((1, 1, 1, 2)))
    source = made.right if clean else made.source
    bugs = () if clean else tuple(sorted(made.bugs, key=lambda bug: bug.line))
    # held-out wordings are those of other clients: our own has one
    if draw.split is not Split.PHRASINGS and rng.random() < ASSISTANT_SHARE:
        change = _change(rng, made, source, bugs) if rng.random() < DIFF_SHARE else None
        messages = _asked_by_assistant(draw, change or of_text(source, made.file))
        if change:
            bugs = tuple(bug for bug in bugs if bug.line in change.reportable)
        thinking = _thinking_of_change(draw, bugs) if change else _thinking(draw, made, bugs)
    else:
        messages, thinking = _asked(draw, made, source), _thinking(draw, made, bugs)
    messages.append(chat.assistant(thinking, findings(draw, bugs)))
    return Conversation(
        skill="review",
        language=draw.language,
        messages=messages,
        facts={"lines": [(bug.line, bug.pair.mutation.kind) for bug in bugs]},
    )


def _asked_by_assistant(draw: Draw, passage: Passage) -> list[dict[str, Any]]:
    """As `expertmesh dev review` asks, about a file or a change."""
    focus = f" {draw.say(*draw.rng.choice(FOCI))}" if draw.rng.random() < 0.15 else ""
    values = {"file": passage.file, "focus": focus, "code": passage.block()}
    name = "review_diff" if passage.is_diff else "review_file"
    system = {"role": "system", "content": prompt("review", draw.language)}
    return [system, chat.user(prompt(name, draw.language, **values))]


def _change(rng: random.Random, made: Project, source: str, bugs: tuple[Bug, ...]) -> Passage:
    """A function that is new, or one line that was another; mistakes elsewhere are not its own."""
    lines = source.split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("def ")]
    if rng.random() < 0.5:
        first = rng.choice(starts)
        end = next((i for i in starts if i > first), len(lines))
        before = [*lines[:first], *lines[end:]]
    else:
        bug = rng.choice(bugs or made.bugs)
        before = list(lines)
        before[bug.line - 1] = bug.right if bugs else bug.wrong
    diff = difflib.unified_diff(
        before, lines, f"a/{made.file}", f"b/{made.file}", n=rng.choice((3, 3, 3, 10)), lineterm=""
    )
    (passage,) = of_diff("\n".join(diff))
    return passage


def _asked(draw: Draw, made: Project, source: str) -> list[dict[str, Any]]:
    """As others ask."""
    messages: list[dict[str, Any]] = []
    _, template = draw.phrase("review")
    text = template.format(file=made.file)
    if draw.rng.random() < 0.7:
        systems = SYSTEMS_EN if draw.english else SYSTEMS_ZH
        messages.append({"role": "system", "content": draw.rng.choice(systems)})
    else:
        text += draw.say(WISH_EN, WISH_ZH)
    return [*messages, chat.user(f"{text}\n\n{shown(draw, made.file, source)}")]


def shown(draw: Draw, file: str, source: str) -> str:
    """The code as a request shows it: mostly with line numbers."""
    rng = draw.rng
    lines = source.rstrip("\n").split("\n")
    style = rng.choice(
        ("{n:6}\t{text}", "{n:6}\t{text}", "{n}: {text}", "{n:4} {text}", "{n} | {text}", "{text}")
    )
    text = "\n".join(style.format(n=n, text=line) for n, line in enumerate(lines, 1))
    if rng.random() < 0.5:
        text = f"```{rng.choice(('python', 'python', ''))}\n{text}\n```"
    return f"{file}:\n{text}" if rng.random() < 0.5 else text


def _thinking(draw: Draw, made: Project, bugs: tuple[Bug, ...]) -> str:
    """Function by function, in the order of the file."""
    by_function = {bug.function: bug for bug in bugs}
    parts = []
    for function in made.functions:
        bug = by_function.get(function)
        told = words.line_is_wrong(draw, bug) if bug else draw.say("right.", "正确。")
        parts.append(f"{function}: {told}")
    return "\n".join(parts)


def _thinking_of_change(draw: Draw, bugs: tuple[Bug, ...]) -> str:
    """Of the new lines alone: what is around them is not all shown."""
    told = [words.line_is_wrong(draw, bug) for bug in bugs]
    return "\n".join(told) or draw.say("The new lines are right.", "新的行都正确。")


def findings(draw: Draw, bugs: tuple[Bug, ...]) -> str:
    found = []
    for bug in bugs:
        kind = bug.pair.mutation.kind
        wrong, right = bug.wrong.strip(), bug.right.strip()
        message = draw.say(*words.MESSAGES[kind])
        if wrong != right:
            message += draw.say(f": should be `{right}`", f"：应为`{right}`")
        found.append(
            {
                "line": bug.line,
                "kind": kind,
                "severity": "warning" if kind in IN_SOME_CASES else "error",
                "message": message,
            }
        )
    return json.dumps(found, ensure_ascii=False)
