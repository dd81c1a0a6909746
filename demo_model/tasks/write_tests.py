"""Which tests does the model write for a function? Two to four asserts whose values are right."""

import re
from dataclasses import replace
from typing import Any

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.programs import catalogue, naming, project, pytest_text, running, templates
from demo_model.programs.project import Check, Project, RedrawError, Test, redrawn
from demo_model.programs.templates import Template, fill
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.reviewing.passages import fenced

BLOCK = re.compile(r"```(?:python)?\n(.*?)```", re.DOTALL)
ASSISTANT_SHARE = 0.6
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
    # held-out wordings are those of other clients: our own has one
    by_assistant = draw.split is not Split.PHRASINGS and rng.random() < ASSISTANT_SHARE
    made = _project(module, source, checks, apart=by_assistant)
    thinking = "\n".join(f"{check.call} -> {project.literal(check.expected)}" for check in checks)
    asked = _asked_by_assistant(draw, made) if by_assistant else _asked(draw, made)
    answer = chat.assistant(thinking, f"```python\n{made.test_source}```")
    if rng.random() < 0.3 and draw.split is Split.TRAIN:
        again = _corrected(draw, made, by_assistant)
        asked, answer = [*asked, *again[:-1]], again[-1] if again else answer
    return Conversation(
        skill="write_tests",
        language=draw.language,
        messages=[*asked, answer],
        facts={"source": source, "module": module, "template": template.name, "names": names},
    )


def _project(module: str, source: str, checks: tuple[Check, ...], *, apart: bool) -> Project:
    """A right module, and its tests: one function for all checks, or one for each."""
    name = f"test_{checks[0].function}"
    tests = (
        tuple(Test(name=f"{name}_{n}", checks=(check,)) for n, check in enumerate(checks, 1))
        if apart
        else (Test(name=name, checks=checks),)
    )
    functions = (checks[0].function,)
    return Project(
        module=module, right=source, source=source, bugs=(), tests=tests, functions=functions
    )


def _asked_by_assistant(draw: Draw, made: Project) -> list[dict[str, Any]]:
    """As `expertmesh dev tests` asks."""
    user = prompt(
        "tests_for",
        draw.language,
        what=draw.rng.choice((made.functions[0], made.file)),
        module=made.module,
        code=fenced(made.source, "python"),
    )
    system = {"role": "system", "content": prompt("tests", draw.language)}
    return [system, chat.user(user)]


def _asked(draw: Draw, made: Project) -> list[dict[str, Any]]:
    """As others ask."""
    rng = draw.rng
    _, wording = draw.phrase("write_tests")
    text = wording.format(function=made.functions[0], file=made.file)
    asked = f"{text}\n\n{made.file}:\n```python\n{made.source}```"
    if rng.random() < 0.2:
        asked = f"{text}\n\n{made.file}:\n{made.source.rstrip()}"
    if rng.random() < 0.6:
        return [chat.user(asked)]
    systems = draw.say("You write tests with pytest.|Answer with one block of Python.",
                       "你用pytest写测试。|用一个Python代码块回答。").split("|")  # fmt: skip
    return [{"role": "system", "content": rng.choice(systems)}, chat.user(asked)]


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


def _corrected(draw: Draw, made: Project, by_assistant: bool) -> list[dict[str, Any]]:
    """An expected value was wrong; the run shows the right one, and the tests are put right.

    Nothing if no expected value is a number.
    """
    places = [
        (i, j)
        for i, test in enumerate(made.tests)
        for j, check in enumerate(test.checks)
        if type(check.expected) is int
    ]
    if not places:
        return []
    i, j = draw.rng.choice(places)
    check = made.tests[i].checks[j]
    wrong = replace(check, expected=check.expected + draw.rng.choice((-2, -1, 1, 2, 10)))
    checks = list(made.tests[i].checks)
    checks[j] = wrong
    tests = list(made.tests)
    tests[i] = replace(made.tests[i], checks=tuple(checks))
    early = replace(made, tests=tuple(tests))
    outcome = pytest_text.run(early, draw.rng, short=by_assistant)
    if by_assistant:
        told = prompt("tests_fail", draw.language, output=fenced(outcome.text.strip()))
    else:
        told = draw.say("The tests fail on this function:", "测试没有通过：") + f"\n{outcome.text}"
    thinking = draw.say(
        f"{check.call} is {check.expected}, not {wrong.expected}.",
        f"{check.call}是{check.expected}，不是{wrong.expected}。",
    )
    return [
        chat.assistant("", f"```python\n{early.test_source}```"),
        chat.user(told.rstrip()),
        chat.assistant(thinking, f"```python\n{made.test_source}```"),
    ]


def code_of(answer: str) -> str | None:
    """The block of code in an answer."""
    found = BLOCK.findall(answer)
    return found[0] if len(found) == 1 else None
