"""Which tests does the model write for a function? Two to four asserts whose values are right."""

import re
from typing import Any

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.programs import catalogue, naming, project, running, templates
from demo_model.programs.project import Check, RedrawError, redrawn
from demo_model.programs.templates import Template, fill

BLOCK = re.compile(r"```(?:python)?\n(.*?)```", re.DOTALL)
TRIES = 24
ROUNDS = 20
"""Sets of checks drawn before another function is taken."""


def make(draw: Draw) -> Conversation:
    return redrawn(lambda: _make(draw))


def _make(draw: Draw) -> Conversation:
    rng = draw.rng
    held_out = draw.split is Split.TEMPLATES
    template = rng.choice(templates.held_out() if held_out else templates.trained())
    names = naming.names_for(rng, template, held_out=draw.split is Split.OPERANDS, taken=set())
    documented = rng.random() < 0.6
    lines = [fill(line, names) for line in template.lines]
    source = "\n".join(project.with_doc(lines, template, names, documented)) + "\n"
    module = naming.pick(rng, naming.MODULES, held_out=draw.split is Split.OPERANDS)
    checks = easy_checks(draw, template, names["f"], source, rng.choice((2, 3, 3, 4)))
    _, wording = draw.phrase("write_tests")
    text = wording.format(function=names["f"], file=f"{module}.py")
    asked = f"{text}\n\n{module}.py:\n```python\n{source}```"
    if rng.random() < 0.2:
        asked = f"{text}\n\n{module}.py:\n{source.rstrip()}"
    body = "".join(f"    {check.statement}\n" for check in checks)
    tests = f"from {module} import {names['f']}\n\n\ndef test_{names['f']}():\n{body}"
    thinking = "\n".join(f"{check.call} -> {project.literal(check.expected)}" for check in checks)
    messages = [chat.user(asked), chat.assistant(thinking, f"```python\n{tests}```")]
    if rng.random() < 0.3 and draw.split is Split.TRAIN:
        messages = _corrected(draw, messages, checks, tests)
    if rng.random() < 0.4:
        systems = draw.say("You write tests with pytest.|Answer with one block of Python.",
                           "你用pytest写测试。|用一个Python代码块回答。").split("|")  # fmt: skip
        messages.insert(0, {"role": "system", "content": rng.choice(systems)})
    return Conversation(
        skill="write_tests",
        language=draw.language,
        messages=messages,
        facts={"source": source, "module": module, "template": template.name, "names": names},
    )


def easy_checks(
    draw: Draw, template: Template, function: str, source: str, count: int
) -> tuple[Check, ...]:
    """Of many checks those that are short, with different values where possible.

    One of them fails for a wrong variant of the function. Raises RedrawError if none is found.
    """
    right = running.define(source, "right.py")[function]
    wrong = _wrong(draw, template, function, source)
    for _ in range(ROUNDS):
        found = project.checks_of(draw.rng, template, function, right, TRIES // 2)
        by_length = sorted(found, key=lambda check: len(check.statement) + draw.rng.random() * 8)
        chosen: list[Check] = []
        for check in by_length:
            if all(check.expected != other.expected for other in chosen):
                chosen.append(check)
        chosen += [check for check in by_length if check not in chosen]
        noticing = [check for check in chosen if project.fails(wrong, check)]
        if len(chosen) < 2 or not noticing:
            continue
        # some variants differ for long arguments alone, which are never among the shortest
        chosen = chosen[:count]
        if noticing[0] not in chosen:
            chosen[-1] = noticing[0]
        return tuple(chosen)
    raise RedrawError


def _wrong(draw: Draw, template: Template, function: str, source: str) -> Any:
    """One of the wrong variants of the function, which the tests must notice."""
    pairs = [p for p in catalogue.pairs() if p.template is template and not p.breaks]
    pair = draw.rng.choice(pairs)
    names = catalogue.default_names(template) | {"f": function}
    return running.define(fill("\n".join(pair.lines), names), "wrong.py")[function]


def _corrected(
    draw: Draw, messages: list[dict[str, object]], checks: tuple[Check, ...], tests: str
) -> list[dict[str, object]]:
    """An expected value was wrong; the run shows the right one, and the tests are put right."""
    check = next((c for c in checks if type(c.expected) is int), None)
    if check is None:
        return messages
    wrong = check.expected + draw.rng.choice((-2, -1, 1, 2, 10))
    statement = f"assert {check.call} == {wrong}"
    early = tests.replace(check.statement, statement)
    first = chat.assistant("", f"```python\n{early}```")
    told = draw.say("The tests fail on this function:", "测试没有通过：")
    failure = (
        f"{told}\nE       assert {check.expected} == {wrong}\nE        +  where {check.expected} = "
    )
    failure += f"{check.function}({', '.join(map(repr, check.arguments))})"
    thinking = draw.say(
        f"{check.call} is {check.expected}, not {wrong}.",
        f"{check.call}是{check.expected}，不是{wrong}。",
    )
    return [
        messages[0],
        first,
        chat.user(failure),
        chat.assistant(thinking, f"```python\n{tests}```"),
    ]


def code_of(answer: str) -> str | None:
    """The block of code in an answer."""
    found = BLOCK.findall(answer)
    return found[0] if len(found) == 1 else None
