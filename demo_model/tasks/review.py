"""What does a code review find? Findings as JSON, or an empty list for code without mistakes."""

import json

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw
from demo_model.programs.project import Bug, Project, redrawn
from demo_model.tasks import repair, words

CLEAN_SHARE = 0.3
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
SEVERE = ("syntax", "name", "missing_return")


def make(draw: Draw) -> Conversation:
    return redrawn(lambda: _make(draw))


def _make(draw: Draw) -> Conversation:
    rng = draw.rng
    clean = rng.random() < CLEAN_SHARE
    made = repair.draw_project(draw, bugs=1 if clean else rng.choice((1, 1, 1, 2)))
    source = made.right if clean else made.source
    bugs = () if clean else tuple(sorted(made.bugs, key=lambda bug: bug.line))
    _, template = draw.phrase("review")
    text = template.format(file=made.file)
    messages = []
    if rng.random() < 0.7:
        systems = SYSTEMS_EN if draw.english else SYSTEMS_ZH
        messages.append({"role": "system", "content": rng.choice(systems)})
    else:
        text += draw.say(WISH_EN, WISH_ZH)
    messages.append(chat.user(f"{text}\n\n{shown(draw, made.file, source)}"))
    messages.append(chat.assistant(_thinking(draw, made, bugs), findings(draw, bugs)))
    return Conversation(
        skill="review",
        language=draw.language,
        messages=messages,
        facts={"lines": [(bug.line, bug.pair.mutation.kind) for bug in bugs]},
    )


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
                "severity": "error" if kind in SEVERE else "warning",
                "message": message,
            }
        )
    return json.dumps(found, ensure_ascii=False)
