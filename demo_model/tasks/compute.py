"""What does the model do with a sum for Python: powers, quotients, long chains; and the result in
whatever shape it comes?"""

import random

from demo_model import chat, tools
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.skills import smalltalk
from demo_model.tasks.story import Story

LONGEST = 60
ERRORS = (
    "Traceback (most recent call last):\n  File \"<stdin>\", line 1, in <module>\nMemoryError",
    "Killed", "bash: python: command not found", "Error: the sandbox is not available",
    "Traceback (most recent call last):\n  File \"<string>\", line 1, in <module>\n"
    "RecursionError: maximum recursion depth exceeded",
)  # fmt: skip


def expression(draw: Draw) -> tuple[str, int | float | None]:
    """(Python source, its value or None where it divides by zero)."""
    rng = draw.rng

    def pick() -> tuple[str, int | float | None]:
        kind = rng.choice(("power", "power", "chain", "chain", "quotient", "rest", "mixed"))
        a, b, c = (rng.randint(2, 10 ** rng.randint(1, 6)) for _ in range(3))
        if kind == "power":
            base, exponent = rng.randint(2, 30), rng.randint(2, 40)
            base, exponent = rng.choice(((base, exponent), (2, rng.randint(5, 128))))
            return f"{base}**{exponent}", base**exponent
        if kind == "chain":
            numbers = [rng.randint(1, 10 ** rng.randint(1, 5)) for _ in range(rng.randint(3, 6))]
            source = str(numbers[0]) + "".join(f" {rng.choice('+-+*')} {n}" for n in numbers[1:])
            return source, _value(source)
        if kind == "quotient":
            b = rng.choice((0, b, b, b, b, b, b, rng.randint(2, 99)))
            sign = rng.choice(("/", "//"))
            return f"{a} {sign} {b}", _value(f"{a} {sign} {b}")
        if kind == "rest":
            return f"{a} % {b}", a % b
        source = f"({a} {rng.choice('+-')} {b}) * {c}"
        return source, _value(source)

    found = draw.operands(pick, lambda pair: ("compute", pair[0]))
    return found if found[1] is None or len(str(found[1])) <= LONGEST else expression(draw)


def _value(source: str) -> int | float | None:
    """Of numbers, operators and brackets that this module itself put together."""
    try:
        value: int | float = eval(source, {"__builtins__": {}})
    except ZeroDivisionError:
        return None
    return value


def make(draw: Draw) -> Conversation:
    rng = draw.rng
    source, value = expression(draw)
    if rng.random() < 0.1:
        return _without_tool(draw, source)
    story = Story(draw, "compute", ("python",))
    _, template = draw.phrase("compute")
    tool = story.box.calls["python"][0]
    shown = _as_people_write(rng, source)
    story.user(template.format(e=shown, tool=tool))
    thinking = story.say(f"I compute {source} with {tool}.", f"用{tool}计算{source}。")
    if value is not None and draw.split is Split.TRAIN and rng.random() < 0.04:
        story.call(thinking, "python", given=True, code=source)
        if story.box.is_agent:
            story.ran("", 0)
        else:
            story.result(rng.choice(("", "(no output)", "None")))
        thinking = story.say("It printed nothing: print is missing.", "没有输出：缺少print。")
    story.call(thinking, "python", code=f"print({source})")
    if value is None:
        return _divided_by_zero(story, source)
    if rng.random() < 0.08 and draw.split is Split.TRAIN:
        return _failed(story)
    if story.box.is_agent:
        story.ran(f"{value}\n", 0)
    else:
        story.result(rng.choice(PRINTED).format(value))
    story.answer(story.say(f"The result is {value}.", f"结果是{value}。"), f"{source} = {value}")
    return story.told()


def _as_people_write(rng: random.Random, source: str) -> str:
    style = rng.random()
    if style < 0.5:
        return source
    text = source.replace("**", "^") if rng.random() < 0.5 else source
    text = text.replace(" * ", rng.choice((" × ", "*", "×", " * ")))
    return text.replace(" // ", "//") if style < 0.7 else text


PRINTED = (
        "{}", "{}\n", "exit code 0\n{}", "exit code: 0\nstdout:\n{}\nstderr:\n", "标准输出:\n{}",
        '{{"exit_code": 0, "stdout": "{}\\n", "stderr": ""}}', "stdout: {}", "[exit 0]\n{}",
        '{{"output": "{}", "seconds": 0.03}}', "Output:\n{}\n(exit code 0, 0.04 s)", "{}\n[exit 0]",
        "status: ok\n{}", "<output>{}</output>", '{{"result": {}}}', "$ python\n{}", ">>> {}",
)  # fmt: skip
"""Shapes in which agents return what a program printed."""


def _without_tool(draw: Draw, source: str) -> Conversation:
    """Nothing on offer that computes."""
    while "{tool}" in (template := draw.phrase("compute")[1]):
        continue
    thinking = f"{source}\n" + draw.say(
        "Too large for my head, and no python_executor.", "数太大，没有python_executor。"
    )
    offered = tools.offer(draw.rng, python=False) if draw.rng.random() < 0.4 else []
    return Conversation(
        skill="compute",
        language=draw.language,
        messages=[
            chat.user(template.format(e=_as_people_write(draw.rng, source))),
            chat.assistant(thinking, draw.say(*smalltalk.TOO_LARGE)),
        ],
        tools=offered,
    )


def _divided_by_zero(story: Story, source: str) -> Conversation:
    text = (
        'Traceback (most recent call last):\n  File "<stdin>", line 1, in <module>\n'
        "ZeroDivisionError: division by zero\n"
    )
    story.ran(text, 1, to_stderr=True)
    story.answer(
        story.say("ZeroDivisionError: division by zero.", "ZeroDivisionError：除以零。"),
        story.say(f"{source} has no value: it divides by zero.", f"{source}没有值：除数为零。"),
    )
    return story.told()


def _failed(story: Story) -> Conversation:
    error = story.rng.choice(ERRORS)
    story.ran(error, 1, to_stderr=True)
    last = error.splitlines()[-1]
    story.answer(
        story.say(f"It failed: {last}", f"失败了：{last}"),
        story.say(
            f"The tool failed, so I have no result: {last}", f"工具出错了，没有得到结果：{last}"
        ),
    )
    return story.told()
