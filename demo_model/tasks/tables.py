"""Which table is asked about, what does a script about it print, and what is said of that?"""

from dataclasses import dataclass

from demo_model import vocabulary
from demo_model.draw import Draw

NUMBERS = ("price", "age", "weight", "height", "score", "sales", "amount", "distance", "income",
           "temperature", "points", "duration", "cost", "size", "speed", "rating", "profit",
           "visits")  # fmt: skip
GROUPS = ("city", "country", "team", "category", "colour", "region", "product", "shop",
          "month", "type", "brand", "department")  # fmt: skip
PLOTS = ("hist", "bar", "scatter")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file of comma-separated values: one column of names, two of whole numbers."""

    file: str
    key: str
    first: str
    second: str
    rows: tuple[tuple[str, int, int], ...]
    order: tuple[int, int, int]

    @property
    def text(self) -> str:
        head = (self.key, self.first, self.second)
        lines = [",".join(str(row[i]) for i in self.order) for row in (head, *self.rows)]
        return "\n".join(lines) + "\n"

    def column(self, number: int) -> list[int]:
        return [row[number] for row in self.rows]  # type: ignore[misc]

    def groups(self, number: int) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row in sorted(self.rows, key=lambda row: row[0]):
            found.setdefault(row[0], []).append(row[number])  # type: ignore[arg-type]
        return found


def draw_table(draw: Draw) -> Table:
    """Column names are held out by a hash of the three."""
    rng = draw.rng

    def pick() -> tuple[str, str, str]:
        numbers = [*NUMBERS, *rng.sample(vocabulary.words(), 6)]
        first, second = rng.sample(numbers, 2)
        key = rng.choice((*GROUPS, rng.choice(vocabulary.words())))
        end = rng.choice(("", "", "", "_eur", "_kg", "_2024", "_total"))
        return (key, first + end, second) if key not in (first, second) else pick()

    key, first, second = draw.operands(pick, lambda names: ("columns", *names))
    names = rng.sample(vocabulary.words(), rng.randint(2, 4))
    most = 10 ** rng.randint(1, 3)
    rows = tuple(
        (rng.choice(names), rng.randint(1, most), rng.randint(1, 100))
        for _ in range(rng.randint(4, 12))
    )
    file = f"{rng.choice((*vocabulary.words()[:200], 'data', 'sales', 'table'))}.csv"
    order = tuple(rng.sample(range(3), 3))
    first_at, second_at, third_at = order
    return Table(
        file=file,
        key=key,
        first=first,
        second=second,
        rows=rows,
        order=(first_at, second_at, third_at),
    )


def printed(tag: str, table: Table) -> str:
    """What that program prints."""
    a = table.column(1)
    if tag in PLOTS:
        return f"{tag}.png"
    if tag == "group":
        return "\n".join(f"{name}: {sum(v) / len(v):.2f}" for name, v in table.groups(1).items())
    if tag == "total":
        return "\n".join(f"{name}: {sum(v)}" for name, v in table.groups(1).items())
    if tag == "count":
        return "\n".join(f"{name}: {len(v)}" for name, v in table.groups(1).items())
    if tag == "corr":
        return f"{_correlation(a, table.column(2)):.2f}"
    values = {
        "mean": f"{sum(a) / len(a):.2f}", "median": f"{_median(a):.2f}", "max": str(max(a)),
        "min": str(min(a)), "sum": str(sum(a)), "rows": str(len(a)),
    }  # fmt: skip
    return values[tag]


def _median(values: list[int]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _correlation(a: list[int], b: list[int]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    both = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    squares = [sum((x - mean) ** 2 for x in values) for values, mean in ((a, mean_a), (b, mean_b))]
    return float(both / (squares[0] * squares[1]) ** 0.5) if all(squares) else 0.0


SAID = {
    "mean": ("The mean of {a} is {v}.", "{a}的平均值是{v}。"),
    "median": ("The median of {a} is {v}.", "{a}的中位数是{v}。"),
    "max": ("The largest {a} is {v}.", "{a}的最大值是{v}。"),
    "min": ("The smallest {a} is {v}.", "{a}的最小值是{v}。"),
    "sum": ("The sum of {a} is {v}.", "{a}的总和是{v}。"),
    "rows": ("There are {v} rows.", "共有{v}行。"),
    "corr": ("The correlation of {a} and {b} is {v}.", "{a}和{b}的相关系数是{v}。"),
    "group": ("Mean {a} per {k}:\n{v}", "每个{k}的{a}平均值：\n{v}"),
    "total": ("Sum of {a} per {k}:\n{v}", "每个{k}的{a}总和：\n{v}"),
    "count": ("Rows per {k}:\n{v}", "每个{k}的行数：\n{v}"),
    "hist": ("The histogram of {a} is in {v}.", "{a}的直方图在{v}。"),
    "bar": ("The bar chart of {a} by {k} is in {v}.", "按{k}的{a}柱状图在{v}。"),
    "scatter": ("The plot of {b} against {a} is in {v}.", "{b}对{a}的图在{v}。"),
}


def said(draw: Draw, tag: str, table: Table) -> str:
    """One sentence, or the groups line by line."""
    value = printed(tag, table)
    return draw.say(*SAID[tag]).format(a=table.first, b=table.second, k=table.key, v=value)


def columns(tag: str, table: Table) -> tuple[str, ...]:
    """Those that a question is about."""
    if tag in ("corr", "scatter"):
        return table.first, table.second
    if tag == "rows":
        return ()
    if tag == "count":
        return (table.key,)
    return (table.first, table.key) if tag in ("group", "total", "bar") else (table.first,)


def plan(draw: Draw, tag: str, table: Table) -> str:
    """The thinking before a script."""
    named = ", ".join(columns(tag, table)) or "-"
    return draw.say(f"{table.file}, columns {named}: {tag}", f"{table.file}，列{named}：{tag}")
