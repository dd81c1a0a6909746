"""What does the model say while it repairs a program? In both languages."""

from demo_model.draw import Draw
from demo_model.programs.project import Bug
from demo_model.programs.pytest_text import Failure, Outcome

MESSAGES: dict[str, tuple[str, str]] = {
    "operator": ("the wrong operator", "运算符错了"),
    "comparison": ("the wrong comparison", "比较错了"),
    "off_by_one": ("off by one", "差一错误"),
    "initial_value": ("the wrong initial value", "初始值错了"),
    "missing_return": ("the return is missing", "缺少return"),
    "wrong_return": ("the wrong value is returned", "返回值错了"),
    "condition": ("the condition is wrong", "条件错了"),
    "index": ("the wrong index", "下标错了"),
    "wrong_call": ("the wrong function is called", "调用的函数错了"),
    "indentation": ("the return is inside the block", "return缩进太深"),
    "name": ("a name that does not exist", "名字不存在"),
    "syntax": ("invalid syntax", "语法错误"),
    "operand_order": ("the operands are in the wrong order", "操作数顺序错了"),
}
"""Kind of mistake -> what a review says of it."""


def what_failed(draw: Draw, outcome: Outcome, file: str) -> str:
    """The first failure in one line, with the values that matter."""
    if outcome.endless:
        return draw.say(
            f"The tests never end: a loop in {file}.", f"测试不结束：{file}里有死循环。"
        )
    if outcome.broken:
        return draw.say(f"{file} has a syntax error.", f"{file}有语法错误。")
    return one_failure(draw, outcome.failures[0])


def one_failure(draw: Draw, failure: Failure) -> str:
    check = failure.check
    if failure.raised:
        name = type(failure.raised.error).__name__
        return draw.say(f"{check.call} raises {name}.", f"{check.call}抛出{name}。")
    return draw.say(
        f"{check.call} is {failure.value!r}, must be {check.expected!r}.",
        f"{check.call}得到{failure.value!r}，应为{check.expected!r}。",
    )


def line_is_wrong(draw: Draw, bug: Bug) -> str:
    """The line, copied, and what it must be."""
    kind = draw.say(*MESSAGES[bug.pair.mutation.kind])
    wrong, right = bug.wrong.strip(), bug.right.strip()
    if bug.pair.mutation.kind == "indentation":
        return draw.say(
            f"Line {bug.line}: `{wrong}` is too deep, {kind}.",
            f"第{bug.line}行：`{wrong}`，{kind}。",
        )
    return draw.say(
        f"Line {bug.line}: {kind}. `{wrong}` must be `{right}`.",
        f"第{bug.line}行：{kind}。`{wrong}`应为`{right}`。",
    )


def passed(draw: Draw, count: int) -> str:
    if count == 1:
        return draw.say("The test passes.", "测试通过了。")
    return draw.say(f"All {count} tests pass.", f"{count}个测试都通过了。")


def fixed(draw: Draw, bugs: list[Bug], file: str, count: int) -> str:
    """The last word of a repair."""
    parts = []
    for bug in bugs:
        wrong, right = bug.wrong.strip(), bug.right.strip()
        if wrong == right:
            parts.append(
                draw.say(
                    f"`{right}` in line {bug.line} is outside the block now",
                    f"第{bug.line}行的`{right}`移出了代码块",
                )
            )
        else:
            parts.append(
                draw.say(
                    f"line {bug.line} was `{wrong}` and is `{right}` now",
                    f"第{bug.line}行由`{wrong}`改为`{right}`",
                )
            )
    done = draw.say("; ", "；").join(parts)
    head = draw.say(f"I fixed {file}: {done}.", f"已修好{file}：{done}。")
    return head + draw.say(" ", "") + passed(draw, count)
