"""Which script answers a question about a table, and what does its output say?"""

import random

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw
from demo_model.tasks import analyses, tables
from demo_model.tasks.story import Story
from demo_model.tasks.tables import PLOTS, Table

BLOCK_SHARE = 0.5
ASSISTANT_SHARE = 0.75
"""Of the blocks, those that `expertmesh data analyse` asks for."""


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


def make(draw: Draw) -> Conversation:
    tag, template = draw.phrase("data")
    table = tables.draw_table(draw)
    code = script(tag, table)
    if draw.rng.random() < BLOCK_SHARE:
        if draw.rng.random() < ASSISTANT_SHARE:
            goal = template.format(a=table.first, b=table.second, k=table.key)
            return analyses.make(draw, tag, goal, table)
        return _block(draw, tag, template, table, code)
    story = Story(draw, "data", ("python",))
    story.user(asked(draw, template, table))
    story.call(tables.plan(draw, tag, table), "python", code=code)
    story.ran(f"{tables.printed(tag, table)}\n", 0)
    thinking = draw.say("I say what it printed.", "说明输出的结果。")
    story.answer(thinking, tables.said(draw, tag, table))
    return story.told()


def _block(draw: Draw, tag: str, template: str, table: Table, code: str) -> Conversation:
    """The script alone, as another client asks for it."""
    wish = draw.say(
        " Answer with one Python script that uses pandas.", "用一个使用pandas的Python脚本回答。"
    )
    answer = chat.assistant(tables.plan(draw, tag, table), f"```python\n{code}\n```")
    messages = [chat.user(asked(draw, template, table) + "\n" + wish.strip()), answer]
    return Conversation(
        skill="data",
        language=draw.language,
        messages=messages,
        facts={"csv": table.text, "file": table.file},
    )


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
