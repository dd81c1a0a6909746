"""Weekdays and dates."""

from demo_model.draw import Draw, Split, Turn

WEEKDAYS_EN = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
WEEKDAYS_ZH = "一二三四五六日"
MONTHS_EN = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _weekday(draw: Draw, index: int) -> str:
    return draw.say(WEEKDAYS_EN[index % 7], "星期" + WEEKDAYS_ZH[index % 7])


def weekday(draw: Draw) -> Turn:
    small = draw.split is not Split.OPERANDS  # seven questions are too few to hold any out
    tags = ("after", "before", "tomorrow", "yesterday") if small else ("after", "before")
    tag, template = draw.phrase("weekday", tags=tags)
    if tag in ("tomorrow", "yesterday"):
        start, n = draw.rng.randrange(7), 1
    else:
        start, n = draw.operands(
            lambda: (draw.rng.randrange(7), draw.rng.randint(1, draw.rng.choice((7, 30, 100)))),
            lambda pair: ("weekday", tag, *pair),
        )
    sign = 1 if tag in ("after", "tomorrow") else -1
    shown = _weekday(draw, start)
    if not draw.english and draw.rng.random() < 0.4:
        shown = shown.replace("星期", "周")
    elif not draw.english and start == 6 and draw.rng.random() < 0.3:
        shown = "星期天"
    weeks, rest = divmod(n, 7)
    path = [f"{i} {_weekday(draw, start + sign * i)}" for i in range(1, rest + 1)]
    comma = draw.say(", ", "，")
    thinking = f"{n}=7×{weeks}+{rest}\n" + comma.join([f"0 {_weekday(draw, start)}", *path])
    end = _weekday(draw, start + sign * n)
    return Turn(
        user=template.format(n=n, day=shown),
        thinking=thinking,
        answer=draw.say(f"It is {end}.", f"是{end}。"),
        facts={"answer": end},
    )


def dates(draw: Draw) -> Turn:
    small = draw.split is not Split.OPERANDS
    tags = ("length", "after", "before") + (("next", "previous", "month") if small else ())
    tag, template = draw.phrase("dates", tags=tags)
    if tag == "length":
        return _month_length(draw, template)
    if tag == "month":
        return _plain_month_length(draw, template)
    if tag in ("next", "previous"):
        month = draw.rng.randrange(12)
        other = (month + (1 if tag == "next" else -1)) % 12
        thinking = draw.say(
            f"{MONTHS_EN[month]}: {month + 1}, {MONTHS_EN[other]}: {other + 1}",
            f"{month + 1}月，{other + 1}月",
        )
        answer = draw.say(f"It is {MONTHS_EN[other]}.", f"是{other + 1}月。")
        return Turn(
            user=template.format(month=_month(draw, month)), thinking=thinking, answer=answer
        )
    return _shift(draw, tag, template)


def _month(draw: Draw, month: int) -> str:
    return draw.say(MONTHS_EN[month], f"{month + 1}月")


def _month_length(draw: Draw, template: str) -> Turn:
    month, year = draw.operands(
        lambda: (draw.rng.choice((1, draw.rng.randrange(12))), draw.rng.randint(1900, 2100)),
        lambda pair: ("length", *pair),
    )
    name = _month(draw, month)
    days = MONTH_DAYS[month]
    lines = []
    if month == 1:
        leap, why = _leap(year)
        days += leap
        lines.append(why)
        lines.append(draw.say("leap year", "闰年") if leap else draw.say("common year", "平年"))
    lines.append(draw.say(f"{name}: {days} days", f"{name}：{days}天"))
    answer = draw.say(f"{name} {year} has {days} days.", f"{year}年{name}有{days}天。")
    return Turn(
        user=template.format(month=name, year=year), thinking="\n".join(lines), answer=answer
    )


def _plain_month_length(draw: Draw, template: str) -> Turn:
    """No year is named, so February gets both answers."""
    month = draw.rng.choice((1, draw.rng.randrange(12)))
    name = _month(draw, month)
    if month == 1:
        answer = draw.say(f"{name} has 28 days, 29 in a leap year.", f"{name}有28天，闰年有29天。")
        thinking = draw.say(f"{name}: 28 or 29 days", f"{name}：28或29天")
    else:
        answer = draw.say(
            f"{name} has {MONTH_DAYS[month]} days.", f"{name}有{MONTH_DAYS[month]}天。"
        )
        thinking = draw.say(f"{name}: {MONTH_DAYS[month]} days", f"{name}：{MONTH_DAYS[month]}天")
    return Turn(user=template.format(month=name), thinking=thinking, answer=answer)


def _leap(year: int) -> tuple[bool, str]:
    century, rest = divmod(year, 100)
    value = century if rest == 0 else rest
    return value % 4 == 0, f"{year}: {value:02d}=4×{value // 4}+{value % 4}"


def _shift(draw: Draw, tag: str, template: str) -> Turn:
    def pick() -> tuple[int, int, int]:
        month = draw.rng.randrange(12)
        return month, draw.rng.randint(1, MONTH_DAYS[month]), draw.rng.randint(1, 28)

    month, day, n = draw.operands(pick, lambda key: (tag, *key))
    user = template.format(month=_month(draw, month), d=day, n=n)
    step = 1 if tag == "after" else -1
    target = (month + step) % 12
    comma = draw.say(", ", "，")

    def length_of(m: int) -> str:
        days = MONTH_DAYS[m]
        return draw.say(f"{MONTHS_EN[m]}: {days} days", f"{m + 1}月：{days}天")

    if tag == "after":
        limit, total = MONTH_DAYS[month], day + n
        thinking = f"{length_of(month)}\n{day}+{n}={total}"
        if total <= limit:
            thinking, target, end = f"{thinking}{comma}{total}<={limit}", month, total
        else:
            end = total - limit
            thinking += f"{comma}{total}>{limit}{comma}{total}-{limit}={end}"
    elif n < day:
        target, end = month, day - n
        thinking = f"{n}<{day}{comma}{day}-{n}={end}"
    else:
        over = n - day
        end = MONTH_DAYS[target] - over
        thinking = f"{n}>={day}{comma}{n}-{day}={over}\n{length_of(target)}{comma}"
        thinking += f"{MONTH_DAYS[target]}-{over}={end}"
    date = draw.say(f"{MONTHS_EN[target]} {end}", f"{target + 1}月{end}日")
    return Turn(
        user=user, thinking=f"{thinking}\n{date}", answer=draw.say(f"It is {date}.", f"是{date}。")
    )
