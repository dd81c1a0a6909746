"""Comparing two numbers and sorting a few."""

from demo_model.draw import Draw, Turn
from demo_model.skills.arithmetic import number, relation

SEPARATORS = {"en": (", ", ", ", ", ", " ", ","), "zh": ("、", "，", ", ", "、", " ")}


def compare(draw: Draw) -> Turn:
    def pick() -> tuple[int, int]:
        a = number(draw)
        dice = draw.rng.random()
        if dice < 0.1:
            return a, a
        if dice < 0.5:
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
    thinking = relation(draw, a, b)
    if a == b:
        same = draw.say(f"{a} and {b} are equal.", f"{a}和{b}相等。")
        return Turn(user=user, thinking=thinking, answer=same, facts={"answer": a})
    big, small = max(a, b), min(a, b)
    if tag == "larger":
        thinking += draw.say(f"\nlarger: {big}", f"\n较大：{big}")
        answer = draw.say(f"{big} is larger than {small}.", f"{big}比{small}大。")
    else:
        thinking += draw.say(f"\nsmaller: {small}", f"\n较小：{small}")
        answer = draw.say(f"{small} is smaller than {big}.", f"{small}比{big}小。")
    asked = big if tag == "larger" else small
    return Turn(user=user, thinking=thinking, answer=answer, facts={"answer": asked})


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
    return Turn(
        user=user,
        thinking="\n".join(lines),
        answer=comma.join(map(str, ordered)),
        facts={"answer": ordered},
    )
