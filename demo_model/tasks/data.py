"""Which script answers a question about a table, and what does its output say?"""

import random
from dataclasses import dataclass

from demo_model import chat, vocabulary
from demo_model.chat import Conversation
from demo_model.draw import Draw
from demo_model.tasks.story import Story

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


def script(tag: str, table: Table) -> str:
    """The program for one kind of question."""
    a, b, k = table.first, table.second, table.key
    head = f'import pandas as pd\n\ndf = pd.read_csv("{table.file}")\n'
    if tag in PLOTS:
        picture = f"{tag}.png"
        plot = {
            "hist": f'df["{a}"].plot.hist()',
            "bar": f'df.groupby("{k}")["{a}"].mean().plot.bar()',
            "scatter": f'df.plot.scatter(x="{a}", y="{b}")',
        }[tag]
        return (
            f'import matplotlib\n\nmatplotlib.use("Agg")\n'
            f"import matplotlib.pyplot as plt\n{head}{plot}\n"
            f'plt.savefig("{picture}")\nprint("{picture}")'
        )
    if tag in ("group", "total"):
        how, form = ("mean", "{value:.2f}") if tag == "group" else ("sum", "{value}")
        loop = f'for name, value in df.groupby("{k}")["{a}"].{how}().items():'
        return f'{head}{loop}\n    print(f"{{name}}: {form}")'
    if tag == "count":
        loop = f'for name, value in df.groupby("{k}").size().items():'
        return f'{head}{loop}\n    print(f"{{name}}: {{value}}")'
    if tag == "rows":
        return f"{head}print(len(df))"
    if tag == "corr":
        return f'{head}print(f"{{df["{a}"].corr(df["{b}"]):.2f}}")'.replace(
            f'df["{a}"].', f"df['{a}']."
        ).replace(f'df["{b}"]', f"df['{b}']")
    if tag in ("mean", "median"):
        return f"{head}print(f\"{{df['{a}'].{tag}():.2f}}\")"
    return f'{head}print(df["{a}"].{tag}())'


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


def make(draw: Draw) -> Conversation:
    tag, template = draw.phrase("data")
    table = draw_table(draw)
    code = script(tag, table)
    if draw.rng.random() < 0.35:
        return _block(draw, tag, template, table, code)
    story = Story(draw, "data", ("python",))
    story.user(asked(draw, template, table))
    story.call(_plan(draw, tag, table), "python", code=code)
    value = printed(tag, table)
    story.ran(f"{value}\n", 0)
    said = draw.say(*SAID[tag]).format(a=table.first, b=table.second, k=table.key, v=value)
    story.answer(draw.say("I say what it printed.", "说明输出的结果。"), said)
    return story.told()


def _block(draw: Draw, tag: str, template: str, table: Table, code: str) -> Conversation:
    """The script alone, as an assistant that runs it asks for it."""
    wish = draw.say(
        " Answer with one Python script that uses pandas.", "用一个使用pandas的Python脚本回答。"
    )
    answer = chat.assistant(_plan(draw, tag, table), f"```python\n{code}\n```")
    messages = [chat.user(asked(draw, template, table) + "\n" + wish.strip()), answer]
    return Conversation(
        skill="data",
        language=draw.language,
        messages=messages,
        facts={"csv": table.text, "file": table.file},
    )


def _plan(draw: Draw, tag: str, table: Table) -> str:
    named = {
        "corr": (table.first, table.second),
        "scatter": (table.first, table.second),
        "rows": (),
    }
    both = (table.first, table.key) if tag in ("group", "total", "count", "bar") else (table.first,)
    columns = ", ".join(named.get(tag, both)) or "-"
    return draw.say(f"{table.file}, columns {columns}: {tag}", f"{table.file}，列{columns}：{tag}")


def asked(draw: Draw, template: str, table: Table) -> str:
    """The question, the file and the beginning of the file."""
    rng: random.Random = draw.rng
    question = template.format(a=table.first, b=table.second, k=table.key)
    head = "\n".join(table.text.splitlines()[: rng.randint(1, 4)])
    file = draw.say(f"File {table.file}, first lines:", f"文件{table.file}，前几行：")
    if rng.random() < 0.3:
        columns = ", ".join(table.text.splitlines()[0].split(","))
        head, file = draw.say(f"columns: {columns}", f"列：{columns}"), table.file
    return rng.choice((f"{question}\n\n{file}\n{head}", f"{file}\n{head}\n\n{question}"))
