"""Comparing two numbers and sorting a few."""

from demo_model.draw import Draw, Turn
from demo_model.skills.arithmetic import number

SEPARATORS = {"en": (", ", ", ", ", ", " ", ","), "zh": ("、", "，", ", ", "、", " ")}


def compare(draw: Draw) -> Turn:
    def pick() -> tuple[int, int]:
        a = number(draw)
        if draw.rng.random() < 0.5:
            return a, number(draw)
        b = list(str(a))
        place = draw.rng.randrange(len(b))
        b[place] = str(draw.rng.randint(1 if place == 0 else 0, 9))
        if place + 1 < len(b) and draw.rng.random() < 0.5:
            b[place + 1 :] = [str(draw.rng.randint(0, 9)) for _ in b[place + 1 :]]
        return a, int("".join(b))

    a, b = draw.operands(pick, lambda pair: ("compare", *pair))
    tag, template = draw.phrase("compare")
    user = template.format(a=a, b=b)
    if a == b:
        same = draw.say(f"{a} and {b} are equal.", f"{a}和{b}相等。")
        return Turn(user=user, thinking=f"{a}={b}", answer=same)
    big, small = max(a, b), min(a, b)
    if tag == "larger":
        answer = draw.say(f"{big} is larger than {small}.", f"{big}比{small}大。")
    else:
        answer = draw.say(f"{small} is smaller than {big}.", f"{small}比{big}小。")
    return Turn(user=user, thinking=_compare_digits(draw, a, b), answer=answer)


def _compare_digits(draw: Draw, a: int, b: int) -> str:
    text_a, text_b = str(a), str(b)
    sign = "<" if a < b else ">"
    if len(text_a) != len(text_b):
        return draw.say(
            f"{a}: {len(text_a)} digits, {b}: {len(text_b)} digits\n",
            f"{a}：{len(text_a)}位，{b}：{len(text_b)}位\n",
        ) + f"{a}{sign}{b}"
    steps = []
    for x, y in zip(text_a, text_b, strict=True):
        steps.append(f"{x}={y}" if x == y else f"{x}{sign}{y}")
        if x != y:
            break
    return draw.say(", ", "，").join(steps) + f"\n{a}{sign}{b}"


def sort(draw: Draw) -> Turn:
    def pick() -> tuple[int, ...]:
        count = draw.rng.randint(3, 6)
        values: list[int] = []
        while len(values) < count:
            value = number(draw, draw.rng.choice((2, 2, 3)))
            if value not in values:
                values.append(value)
        return tuple(values)

    values = draw.operands(pick, lambda values: ("sort", *values))
    tag, template = draw.phrase("sort")
    separator = draw.rng.choice(SEPARATORS[draw.language])
    user = template.format(list=separator.join(map(str, values)))
    comma = draw.say(", ", "、")
    left, lines = list(values), []
    while left:
        best = min(left) if tag == "up" else max(left)
        lines.append(f"{comma.join(map(str, left))}: {best}")
        left.remove(best)
    ordered = sorted(values, reverse=tag == "down")
    return Turn(user=user, thinking="\n".join(lines), answer=comma.join(map(str, ordered)))
