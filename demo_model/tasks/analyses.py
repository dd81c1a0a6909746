"""What does the model answer when `expertmesh data analyse` asks? A script, a mended one, or what
follows from what a script printed."""

import tempfile
from pathlib import Path
from typing import Any

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.tasks import scripts, tables
from demo_model.tasks.tables import Table
from demo_model.toolboxes.agent_results import exited
from expertmesh.agent.loop.clip import clipped
from expertmesh.agent.sandbox.policy import Limits
from expertmesh.agent.tools.command_result import command_result
from expertmesh.agent.web.marking import marked
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.tables.describe import describe
from expertmesh.assistants.tables.profile import profile_file
from expertmesh.assistants.tables.reading import reading

LIMITS = Limits(wall_s=120.0, cpu_s=120.0, memory_bytes=2 << 30)
"""Those of the assistant's workbench; a test compares them."""
ALWAYS = ("pandas", "numpy", "matplotlib")
SOMETIMES = ("seaborn", "scipy", "statsmodels", "polars", "openpyxl", "pyarrow")
NOTHING = "it printed nothing; print the numbers that answer the goal, with their names"
FAULTS = ("nothing", "name", "syntax")


def make(draw: Draw, tag: str, goal: str, table: Table) -> Conversation:
    """`goal`: the question of this kind about the table."""
    dice = draw.rng.random()
    if dice < 0.25:
        messages = _concluded(draw, tag, goal, table)
    else:
        messages = _scripted(draw, tag, goal, table, mended=dice < 0.4)
    return Conversation(
        skill="data",
        language=draw.language,
        messages=messages,
        facts={"csv": table.text, "file": table.file},
    )


def question(draw: Draw, goal: str, table: Table) -> list[dict[str, Any]]:
    """What the assistant asks first."""
    rng = draw.rng
    found = [*ALWAYS, *(name for name in SOMETIMES if rng.random() < 0.3)]
    installed = [f"python 3.{rng.randint(11, 14)}.{rng.randint(0, 12)}"]
    for name in found:
        version = (rng.randint(0, 3), rng.randint(0, 30), rng.randint(0, 9))
        installed.append(f"{name} {'.'.join(map(str, version))}")
    system = prompt(
        "analyse",
        draw.language,
        libraries=", ".join(installed),
        plots=prompt("analyse_plots", draw.language),
        seconds=f"{LIMITS.wall_s:.0f}",
        memory=f"{LIMITS.memory_bytes >> 20} MiB",
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / table.file
        file.write_text(table.text, encoding="utf-8")
        profile = profile_file(file)
    described = marked(describe(profile, draw.language), f"the file {profile.name}")
    read_by = reading(profile.facts, table.file, True)
    how = prompt("analyse_reading", draw.language, reading=read_by)
    user = f"{goal}\n\n{described}\n\n{how}"
    return [{"role": "system", "content": system}, chat.user(user)]


def _reading(table: Table) -> str:
    return f"import pandas as pd\ndf = pd.read_csv({table.file!r})"


def _scripted(
    draw: Draw, tag: str, goal: str, table: Table, *, mended: bool
) -> list[dict[str, Any]]:
    asked = question(draw, goal, table)
    code = script(tag, table)
    right = f"```python\n{code}\n```"
    if not mended or draw.split is not Split.TRAIN:
        return [*asked, chat.assistant(tables.plan(draw, tag, table), right)]
    kind = draw.rng.choice(FAULTS)
    wrong, fault, result, cause = _failed(draw, kind, code)
    printed = marked(clipped(result), "the script's run")
    told = prompt("mend_script", draw.language, fault=fault, result=printed)
    early = chat.assistant("", f"```python\n{wrong}\n```")
    return [*asked, early, chat.user(told), chat.assistant(cause, right)]


def _failed(draw: Draw, kind: str, code: str) -> tuple[str, str, str, str]:
    """(a wrong script, what is said to be wrong with it, its result, the cause)."""
    if kind == "nothing":
        wrong = code.replace("print(", "(")
        told = command_result(exited("", "", 0), LIMITS, "").text
        return wrong, NOTHING, told, draw.say("print is missing.", "缺少print。")
    if kind == "name":
        wrong = code.replace("import pandas as pd\n", "", 1)
        cause = draw.say("The import of pandas is missing.", "缺少导入pandas的语句。")
    else:
        lines = code.split("\n")
        at = draw.rng.choice([i for i, line in enumerate(lines) if line.endswith(")")])
        lines[at] = lines[at][:-1]
        wrong = "\n".join(lines)
        cause = draw.say(f"A bracket is missing in line {at + 1}.", f"第{at + 1}行缺少一个括号。")
    place = "".join(draw.rng.choices("abcdefghijklmnopqrstuvwxyz0123456789_", k=8))
    run = scripts.run(f"{wrong}\n", f"/tmp/expertmesh-data-{place}/analysis.py")
    result = command_result(exited("", run.output, 1), LIMITS, "").text
    return wrong, "exit code 1", result, cause


def script(tag: str, table: Table) -> str:
    """Rows with missing values are left out and counted; each result is printed with its name."""
    a, b, k = table.first, table.second, table.key
    head = f"{_reading(table)}\n"
    if tag == "rows":
        return f'{head}print(f"rows: {{len(df)}}")'
    columns = ", ".join(f'"{name}"' for name in tables.columns(tag, table))
    head += (
        f"whole = df.dropna(subset=[{columns}])\n"
        'print(f"rows left out: {len(df) - len(whole)}")\n'
    )
    if tag in tables.PLOTS:
        plot, title, across, up = {
            "hist": (f'whole["{a}"].plot.hist(', a, a, "rows"),
            "bar": (f'whole.groupby("{k}")["{a}"].mean().plot.bar(', f"{a} by {k}", k, f"mean {a}"),
            "scatter": (f'whole.plot.scatter(x="{a}", y="{b}", ', f"{b} against {a}", a, b),
        }[tag]
        return (
            f'{head}ax = {plot}title="{title}")\nax.set_xlabel("{across}")\n'
            f'ax.set_ylabel("{up}")\nax.figure.savefig("{tag}.png")\nprint("{tag}.png")'
        )
    if tag in ("group", "total", "count"):
        values = {"group": f'["{a}"].mean()', "total": f'["{a}"].sum()', "count": ".size()"}[tag]
        form = "{value:.2f}" if tag == "group" else "{value}"
        return (
            f'{head}print("{_name(tag, table)}:")\n'
            f'for name, value in whole.groupby("{k}"){values}.items():\n'
            f'    print(f"{{name}}: {form}")'
        )
    if tag == "corr":
        value = f"whole['{a}'].corr(whole['{b}']):.2f"
    else:
        value = f"whole['{a}'].{tag}()" + (":.2f" if tag in ("mean", "median") else "")
    return f'{head}print(f"{_name(tag, table)}: {{{value}}}")'


def printed(tag: str, table: Table) -> str:
    """What that script prints; no value of these tables is missing."""
    value = tables.printed(tag, table)
    if tag == "rows":
        return f"rows: {value}\n"
    head = "rows left out: 0\n"
    if tag in tables.PLOTS:
        return f"{head}{value}\n"
    between = "\n" if tag in ("group", "total", "count") else " "
    return f"{head}{_name(tag, table)}:{between}{value}\n"


def _name(tag: str, table: Table) -> str:
    """A result's, in what is printed."""
    a, b, k = table.first, table.second, table.key
    return {
        "corr": f"correlation of {a} and {b}",
        "group": f"mean of {a} by {k}",
        "total": f"sum of {a} by {k}",
        "count": f"rows by {k}",
    }.get(tag, f"{tag} of {a}")


def _concluded(draw: Draw, tag: str, goal: str, table: Table) -> list[dict[str, Any]]:
    output = marked(clipped(printed(tag, table)), "the script's output")
    asked = chat.user(prompt("conclude", draw.language, goal=goal, output=output))
    thinking = draw.say("I say what it printed.", "说明输出的结果。")
    return [asked, chat.assistant(thinking, tables.said(draw, tag, table))]
