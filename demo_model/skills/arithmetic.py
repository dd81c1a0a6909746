"""Adding, subtracting and multiplying in the head, one written digit at a time."""

from demo_model.draw import Draw, Turn

SYMBOLS = {"add": "+", "subtract": "-", "multiply": "×"}
MAX_DIGITS = 4
MAX_HEAD = 10**MAX_DIGITS - 1


def apply(operation: str, a: int, b: int) -> int:
    if operation == "add":
        return a + b
    return a - b if operation == "subtract" else a * b


def in_head(operation: str, a: int, b: int) -> bool:
    """Whether the model is taught to do this without a tool."""
    if min(a, b) < 0:
        return False
    if operation == "multiply":
        return min(a, b) < 10 and max(a, b) < 100
    return max(a, b) <= MAX_HEAD


def number(draw: Draw, most_digits: int = MAX_DIGITS) -> int:
    """A number whose digit count is uniform, so that small ones are not rare."""
    digits = draw.rng.randint(1, most_digits)
    low = 0 if digits == 1 else 10 ** (digits - 1)
    return draw.rng.randint(low, 10**digits - 1)


def operands(draw: Draw, operation: str) -> tuple[int, int]:
    def pick() -> tuple[int, int]:
        if operation != "multiply":
            return number(draw), number(draw)
        pair = (number(draw, 2), draw.rng.randint(0, 9))
        return pair if draw.rng.random() < 0.6 else pair[::-1]

    def key(pair: tuple[int, int]) -> tuple[str, int, int]:
        return operation, pair[0], pair[1]

    return draw.operands(pick, key)


def statement(operation: str, a: int, b: int) -> str:
    return f"{a} {SYMBOLS[operation]} {b} = {apply(operation, a, b)}"


def think(draw: Draw, operation: str, a: int, b: int) -> str:
    """The working: every digit, carry and borrow is written out."""
    head = f"{a}{SYMBOLS[operation]}{b}\n"
    if operation == "add":
        return head + _add(draw, a, b)
    if operation == "multiply":
        return head + _multiply(draw, a, b)
    head += relation(draw, a, b) + "\n"
    if a < b:
        return f"{head}{b}-{a}\n{_subtract(draw, b, a)}\n-{b - a}"
    return head + _subtract(draw, a, b)


def relation(draw: Draw, a: int, b: int) -> str:
    """Which of two numbers is larger, found by their lengths or digit by digit."""
    text_a, text_b = str(a), str(b)
    sign = "=" if a == b else "<" if a < b else ">"
    comma = draw.say(", ", "，")
    if len(text_a) != len(text_b):
        lengths = draw.say(
            f"{a}: {len(text_a)} digits, {b}: {len(text_b)} digits",
            f"{a}：{len(text_a)}位，{b}：{len(text_b)}位",
        )
        return f"{lengths}{comma}{len(text_a)}{sign}{len(text_b)}\n{a}{sign}{b}"
    steps = []
    for x, y in zip(text_a, text_b, strict=True):
        steps.append(f"{x}={y}" if x == y else f"{x}{sign}{y}")
        if x != y:
            break
    return f"{comma.join(steps)}\n{a}{sign}{b}"


def _digits(value: int, width: int) -> list[int]:
    return [int(digit) for digit in reversed(str(value).zfill(width))]


def _add(draw: Draw, a: int, b: int) -> str:
    width = max(len(str(a)), len(str(b)))
    carry, done, lines = 0, "", []
    for x, y in zip(_digits(a, width), _digits(b, width), strict=True):
        total = x + y + carry
        step = f"{x}+{y}" + ("+1" if carry else "") + f"={total}"
        carry = total // 10
        done = str(total % 10) + done
        lines.append(step + (draw.say(", carry 1", "，进1") if carry else "") + f": {done}")
    if carry:
        lines.append(f"1: 1{done}")
    return "\n".join(lines)


def _subtract(draw: Draw, a: int, b: int) -> str:
    width = len(str(a))
    borrow, done, lines = 0, "", []
    for x, y in zip(_digits(a, width), _digits(b, width), strict=True):
        tail = "-1" if borrow else ""
        value = x - y - borrow
        step = f"{x}-{y}{tail}"
        borrow = int(value < 0)
        if borrow:
            step += draw.say(", borrow 1, ", "，借1，") + f"1{x}-{y}{tail}"
        done = str(value % 10) + done
        lines.append(f"{step}={value % 10}: {done}")
    if len(done) > 1 and done[0] == "0":
        lines.append(f"{done}={a - b}")
    return "\n".join(lines)


def _multiply(draw: Draw, a: int, b: int) -> str:
    large, small = max(a, b), min(a, b)
    if large < 10:
        return f"{a}×{b}={a * b}"
    tens, ones = divmod(large, 10)
    carry, digit = divmod(ones * small, 10)
    first = f"{ones}×{small}={ones * small}"
    if carry:
        first += draw.say(f", carry {carry}", f"，进{carry}")
    second = f"{tens}×{small}={tens * small}"
    if carry:
        second += draw.say(", ", "，") + f"{tens * small}+{carry}={tens * small + carry}"
    lines = [f"{first}: {digit}", f"{second}: {tens * small + carry}{digit}"]
    if large * small == 0:
        lines.append(f"{tens * small + carry}{digit}=0")
    return "\n".join(lines)


def solve(draw: Draw, operation: str, a: int, b: int, user: str) -> Turn:
    return Turn(
        user=user,
        thinking=think(draw, operation, a, b),
        answer=statement(operation, a, b),
        value=apply(operation, a, b),
        facts={
            "answer": apply(operation, a, b),
            "first": a,
            "second": b,
            "operation": SYMBOLS[operation],
        },
    )


def ask(draw: Draw, operation: str) -> Turn:
    """An addition, subtraction or multiplication that needs no tool."""
    a, b = operands(draw, operation)
    _, template = draw.phrase(operation)
    return solve(draw, operation, a, b, template.format(a=a, b=b))


def follow_up(draw: Draw, value: int) -> Turn | None:
    """A question that continues with `value`, the result in the last answer."""
    operations = ["add", "subtract"] + (["multiply"] if 0 <= value < 100 else [])
    if not 0 <= value <= MAX_HEAD:
        return None
    operation, template = draw.phrase("follow_up", tags=tuple(operations))

    def pick() -> int:
        return draw.rng.randint(0, 9) if operation == "multiply" else number(draw)

    n = draw.operands(pick, lambda n: (operation, value, n))
    return solve(draw, operation, value, n, template.format(n=n))
