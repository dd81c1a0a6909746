"""How is a whole conversation made: system prompt, earlier turns, tools?"""

import random
from dataclasses import replace
from typing import Any

from demo_model import chat, tools, vocabulary
from demo_model.chat import Conversation
from demo_model.decorate import decorate
from demo_model.draw import Draw, Split, Turn
from demo_model.skills import SKILLS, arithmetic, smalltalk
from demo_model.tasks import compute, families
from demo_model.tasks.families import FAMILIES
from demo_model.toolboxes import toolbox

WEIGHTS = {
    "add": 12,
    "subtract": 13,
    "multiply": 7,
    "compare": 6,
    "sort": 11,
    "count_letters": 11,
    "reverse": 10,
    "uppercase": 9,
    "weekday": 8,
    "dates": 10,
    "greeting": 3,
    "identity": 5,
    "refusal": 7,
    "too_large": 3,
    "follow_up": 8,
    "tool_call": 7,
    "tool_answer": 6,
    "json": 8,
}
"""How often each skill is trained, by its difficulty."""

CHANCES = tuple(families.chances().values())
DRAWN = tuple(families.chances())
HISTORY_SHARE = 0.12
OF_NO_USE = (
    "python_executor", "set_alarm", "turn_on_light", "set_temperature", "take_photo",
    "track_package",
    "git_commit", "get_contacts", "get_balance", "create_ticket", "convert_currency", "send_sms",
    "list_files", "post_message",
)  # fmt: skip
"""Tools that serve none of the requests that the model declines."""
LONG_SHARE = 0.03
LONGEST_LOG2 = 6.5
"""LONG_SHARE of the conversations in training have a long history: up to 2^6.5 = 90 exchanges."""

TOOL_SKILLS = ("tool_call", "tool_answer")
SYMBOLS = {"add": "+", "subtract": "-", "multiply": "*"}
WISHES_EN = (
    "Use python_executor.", "Please use the python_executor tool.", "Call python_executor.",
    "Use the tool.", "Use Python.", "Do it with python_executor.", "Run it in Python.",
    "Use python_executor for this, please.", "Compute it with the tool.",
)  # fmt: skip
WISHES_ZH = (
    "请用python_executor。", "用工具算。", "请调用python_executor。", "用Python算。",
    "请使用python_executor工具。", "用python_executor来算。",
)  # fmt: skip
FAILURES = (
    "Error: timeout",
    "Error: the sandbox is not available",
    "Traceback (most recent call last): MemoryError",
    "SyntaxError: invalid syntax",
)


def make(draw: Draw, skill: str | None = None) -> Conversation:
    """A random conversation, of the given skill if any."""
    rng = draw.rng
    if skill is None:
        skill = rng.choices(DRAWN, CHANCES)[0]
    if skill in FAMILIES:
        return _with_history(draw, FAMILIES[skill](draw))
    if not skill:
        skill = rng.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
    messages = _before(draw)
    if skill in TOOL_SKILLS:
        return _with_tool(draw, skill, messages)
    if skill == "follow_up":
        turn = _follow_up(draw, messages)
    else:
        turn = SKILLS[skill](draw)
    question = decorate(draw, turn.user, skill) if draw.split is Split.TRAIN else turn.user
    messages += [chat.user(question), chat.assistant(turn.thinking, turn.answer)]
    offered: list[dict[str, Any]] = []
    if rng.random() < (0.5 if skill == "too_large" else 0.2):
        python = skill != "too_large" and rng.random() < 0.7
        offered = tools.offer(rng, python=python)
        if skill == "refusal":
            offered = [tool for tool in offered if tool["function"]["name"] in OF_NO_USE]
        elif skill in ("greeting", "identity") and rng.random() < 0.4:
            offered = toolbox.draw(rng, ("run",), agent_share=1.0).offered
    return Conversation(skill=skill, language=draw.language, messages=messages, tools=offered)


def _with_history(draw: Draw, made: Conversation) -> Conversation:
    """Sometimes with exchanges about something else before the task."""
    if draw.split is not Split.TRAIN or draw.rng.random() > HISTORY_SHARE:
        return made
    earlier: list[dict[str, Any]] = []
    for _ in range(draw.rng.choice((1, 1, 2, 3, 5))):
        _add_exchange(earlier, _history(draw))
    at = int(made.messages[0]["role"] == "system")
    return replace(made, messages=[*made.messages[:at], *earlier, *made.messages[at:]])


def _before(draw: Draw) -> list[dict[str, Any]]:
    """A system prompt and earlier exchanges, if any; in training sometimes many."""
    rng = draw.rng
    long = draw.split is Split.TRAIN and rng.random() < LONG_SHARE
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.4:
        prompt = vocabulary.system_prompt(rng, long=long and rng.random() < 0.5)
        messages.append({"role": "system", "content": prompt})
    least = round(2 ** rng.uniform(0, LONGEST_LOG2)) if long else 0
    while len(messages) < 2 * least or (rng.random() < 0.25 and len(messages) < 9):
        _add_exchange(messages, _history(draw))
    return messages


def _history(draw: Draw) -> Turn:
    """An earlier exchange about something else; never held-out material."""
    language = draw.language if draw.rng.random() < 0.8 else draw.rng.choice(("en", "zh"))
    earlier = Draw(rng=draw.rng, language=language)
    return SKILLS[draw.rng.choice(tuple(SKILLS))](earlier)


def _add_exchange(messages: list[dict[str, Any]], turn: Turn) -> None:
    answer = {"role": "assistant", "content": chat.plain(turn.answer)}
    messages += [chat.user(turn.user), answer]


def _follow_up(draw: Draw, messages: list[dict[str, Any]]) -> Turn:
    """One or two sums in the history, then a question that builds on the last result."""
    earlier = Draw(rng=draw.rng, language=draw.language)
    while True:
        turn = SKILLS[draw.rng.choice(("add", "add", "subtract", "multiply"))](earlier)
        if turn.value is not None and 0 <= turn.value <= arithmetic.MAX_HEAD:
            break
    _add_exchange(messages, turn)
    if draw.rng.random() < 0.3:
        middle = arithmetic.follow_up(earlier, turn.value)
        if middle and middle.value is not None and 0 <= middle.value <= arithmetic.MAX_HEAD:
            _add_exchange(messages, middle)
            turn = middle
    assert turn.value is not None
    last = arithmetic.follow_up(draw, turn.value)
    assert last is not None
    return last


def _with_tool(draw: Draw, skill: str, messages: list[dict[str, Any]]) -> Conversation:
    """Arithmetic too large for the head, with python_executor: the call, or call and answer."""
    rng = draw.rng
    operation, a, b = smalltalk.large_operands(draw)
    _, template = draw.phrase(operation)
    question = template.format(a=a, b=b)
    if rng.random() < 0.25:
        earlier = Draw(rng=rng, language=draw.language)
        value = _tool_exchange(earlier, messages)
        if draw.split is Split.TRAIN and value > arithmetic.MAX_HEAD and rng.random() < 0.5:
            operation, template = draw.phrase("follow_up")
            a, b = value, arithmetic.number(draw)
            question = template.format(n=b)
    if draw.split is Split.TRAIN:
        question = decorate(draw, question, skill)
    wished = draw.split is Split.TRAIN and rng.random() < 0.15
    if wished:
        a, b, question = _wish_for_tool(draw, operation)
    messages += [chat.user(question), _call(draw, operation, a, b, wished=wished)]
    if skill == "tool_answer":
        messages += _tool_answer(draw, operation, a, b)
    return Conversation(
        skill=skill,
        language=draw.language,
        messages=messages,
        tools=tools.offer(rng, python=True),
    )


def _wish_for_tool(draw: Draw, operation: str) -> tuple[int, int, str]:
    """Numbers of any size, and a question that asks for the tool by its name."""
    a, b = arithmetic.number(draw), arithmetic.number(draw)
    _, template = draw.phrase(operation)
    wish = draw.rng.choice(WISHES_EN if draw.english else WISHES_ZH)
    space = draw.say(" ", "")
    question = template.format(a=a, b=b)
    return a, b, draw.rng.choice((f"{question}{space}{wish}", f"{wish}{space}{question}"))


def _call(draw: Draw, operation: str, a: int, b: int, *, wished: bool = False) -> dict[str, Any]:
    """A call of python_executor, because the numbers are large or the user asks for it."""
    thinking = f"{a}{arithmetic.SYMBOLS[operation]}{b}\n"
    if wished:
        thinking += draw.say("I call python_executor.", "我用python_executor来算。")
    else:
        thinking += draw.say(
            "Too large for my head. I call python_executor.", "数太大，我用python_executor来算。"
        )
    return chat.assistant(thinking, "", code=f"print({a} {SYMBOLS[operation]} {b})")


def _tool_exchange(draw: Draw, messages: list[dict[str, Any]]) -> int:
    """Add a finished use of the tool to the history; returns its result."""
    operation, a, b = smalltalk.large_operands(draw)
    _, template = draw.phrase(operation)
    result = arithmetic.apply(operation, a, b)
    answer = {"role": "assistant", "content": arithmetic.statement(operation, a, b)}
    messages += [
        chat.user(template.format(a=a, b=b)),
        _call(draw, operation, a, b),
        {"role": "tool", "content": str(result) + draw.rng.choice(("", "\n"))},
        answer,
    ]
    return result


def _tool_answer(draw: Draw, operation: str, a: int, b: int) -> list[dict[str, Any]]:
    if draw.split is Split.TRAIN and draw.rng.random() < 0.06:
        failure = draw.rng.choice(FAILURES)
        sorry = draw.say("The tool failed, so I have no result.", "工具出错了，没有得到结果。")
        thought = draw.say("The tool reports an error.", "工具报错了。")
        return [{"role": "tool", "content": failure}, chat.assistant(thought, sorry)]
    result = str(arithmetic.apply(operation, a, b))
    shapes = ("{}", "{}", "{}\n", "{}\n", "stdout: {}", '{{"output": "{}"}}', "\n{}\n")
    content = draw.rng.choice((*shapes, *compute.PRINTED)).format(result)
    thought = draw.say(f"The tool says {result}.", f"工具返回{result}。")
    answer = arithmetic.statement(operation, a, b)
    return [{"role": "tool", "content": content}, chat.assistant(thought, answer)]


def sample(rng: random.Random, split: Split, skill: str, language: str) -> Conversation:
    """One conversation for evaluation: of a skill, a language and a split."""
    return make(Draw(rng=rng, language=language, split=split), skill)
