"""Which tool does a request need, and which of its words are the arguments?"""

import random
from functools import cache
from pathlib import Path
from typing import Any

from demo_model import chat, phrasings, tools, vocabulary
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.tasks import files
from demo_model.tasks.compute import Story

FOLDER = Path(__file__).parent
LANGUAGES_EN = ("French", "German", "Spanish", "Chinese", "Italian", "English", "Japanese", "Dutch")
LANGUAGES_ZH = ("法语", "德语", "西班牙语", "英语", "意大利语", "日语", "俄语", "韩语")
ROOMS_EN = ("kitchen", "bedroom", "bathroom", "hall", "garage", "office", "cellar", "living room")
ROOMS_ZH = ("厨房", "卧室", "浴室", "走廊", "车库", "书房", "地下室", "客厅")
COMMANDS = ("ls -l", "git status", "df -h", "uname -a", "pwd", "date", "whoami", "wc -l {f}",
            "cat {f}", "python {f}", "head -n {n} {f}", "grep -n {w} {f}", "rm {f}", "mkdir {w}",
            "du -sh {w}")  # fmt: skip
SQL = ("SELECT * FROM {w}", "SELECT {w} FROM {v}", "SELECT COUNT(*) FROM {w} WHERE {v} > {n}",
       "DELETE FROM {w} WHERE id = {n}",
       "SELECT {w}, {v} FROM t ORDER BY {w} LIMIT {n}")  # fmt: skip

Wordings = dict[str, tuple[str, ...]]


@cache
def choices() -> dict[str, Wordings]:
    """Tool -> language -> wordings, the last of which is held out."""
    found: dict[str, Wordings] = {}
    tool = ""
    for line in (FOLDER / "choices.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        if line[:3] in ("en ", "zh "):
            # a bar inside [a|b] is not one between wordings
            parts = phrasings.CHOICE.sub(lambda m: m[0].replace("|", "\x00"), line[3:]).split("|")
            found[tool][line[:2]] = tuple(part.replace("\x00", "|") for part in parts)
        else:
            tool = line
            found[tool] = {}
    return found


def argument(draw: Draw, name: str) -> Any:
    """Something to copy into the parameter of this name."""
    rng = draw.rng
    if name in ("city", "origin", "destination", "timezone", "城市"):
        return rng.choice(vocabulary.listed("places", draw.language))
    if name in ("path", "folder"):
        return files.file_name(draw) if name == "path" else f"{rng.choice(vocabulary.words())}/"
    if name in ("amount", "degrees"):
        return (
            rng.choice((rng.randint(1, 999), rng.randint(1, 99999)))
            if name == "amount"
            else rng.randint(5, 30)
        )
    if name == "target" or name == "source":
        return rng.choice(draw.say("|".join(LANGUAGES_EN), "|".join(LANGUAGES_ZH)).split("|"))
    return _text(draw, name)


def _text(draw: Draw, name: str) -> str:
    rng = draw.rng
    word, other = rng.sample(vocabulary.words(), 2)
    if name == "to":
        host = rng.choice(("example.com", "mail.org", "post.net"))
        return f"{word}{rng.choice(('', '.' + other))}@{host}"
    if name == "symbol":
        return "".join(rng.choices("ABCDEFGHIKLMNOPRSTUVXYZ", k=rng.randint(2, 5)))
    if name == "date":
        return f"20{rng.randint(25, 39)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    if name in ("time", "start"):
        return f"{rng.randint(0, 23)}:{rng.randint(0, 59):02}"
    if name == "url":
        host = rng.choice(("example.com", "docs.test.org", f"{word}.net", f"www.{other}.cn"))
        return f"https://{host}/{rng.choice(vocabulary.words())}"
    if name in ("number", "account", "phone"):
        return "".join(rng.choices("0123456789", k=rng.randint(6, 12)))
    if name == "room":
        return rng.choice(draw.say("|".join(ROOMS_EN), "|".join(ROOMS_ZH)).split("|"))
    if name == "channel":
        return rng.choice(("#", "")) + rng.choice((word, f"{word}-{other}"))
    if name == "command":
        return rng.choice(COMMANDS).format(f=f"{word}.py", w=other, n=rng.randint(1, 50))
    if name == "sql":
        return rng.choice(SQL).format(w=word, v=other, n=rng.randint(1, 999))
    if name in ("topic", "query", "关键词", "prompt", "song") or (
        not draw.english and rng.random() < 0.7
    ):
        pool = rng.choice(("topics", "things", "phrases" if name != "topic" else "topics"))
        return rng.choice((rng.choice(vocabulary.listed(pool, draw.language)), f"{word} {other}"))
    return rng.choice(
        (files.sentence(rng).rstrip("."), rng.choice(vocabulary.listed("phrases", draw.language)))
    )


def make(draw: Draw) -> Conversation:
    """A request that one of the tools on offer serves."""
    rng = draw.rng
    if rng.random() < 0.25:
        return _own_tool(draw)
    names = [name for name in choices() if draw.split is not Split.OPERANDS or name not in FEW]
    name = rng.choice(names)
    wordings = choices()[name][draw.language]
    side = wordings[-1:] if draw.split is Split.PHRASINGS else wordings[:-1]
    wording = phrasings.expand(rng.choice(side), rng)
    slots = [part for part in _parameters(name) if f"{{{part}}}" in wording]

    def pick() -> dict[str, Any]:
        return {slot: argument(draw, slot) for slot in slots}

    if name in FEW:
        arguments = pick()
    else:
        arguments = draw.operands(pick, lambda found: ("tool_choice", name, *found.values()))
    if name == "convert_currency":
        arguments["source"], arguments["target"] = rng.sample(
            ("EUR", "USD", "CNY", "JPY", "GBP", "CHF"), 2
        )
    offered = offer(rng, name)
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": vocabulary.system_prompt(rng)})
    messages.append(chat.user(_filled(wording, arguments)))
    thinking = draw.say(f"{name} can do that.", f"用{name}。")
    messages.append(chat.calling(thinking, (name, arguments)))
    if rng.random() < 0.4:
        messages += _told(draw, name)
    return Conversation(
        skill="tool_choice", language=draw.language, messages=messages, tools=offered
    )


def offer(rng: random.Random, name: str) -> list[dict[str, Any]]:
    """The tool and 0 to 8 others that cannot do the same."""
    alike = {a for group in SAME for a in group if name in group}
    others = [t for t in tools.irrelevant(rng, rng.choice((0, 1, 2, 3, 4, 6, 8)))
              if t["function"]["name"] not in alike | {name}]  # fmt: skip
    if rng.random() < 0.3 and name != "run_shell":
        others.append(tools.python_executor(rng))
    mine = next(t for t in tools.irrelevant(rng, tools.count()) if t["function"]["name"] == name)
    return rng.sample([mine, *others], len(others) + 1)


FEW = ("turn_on_light", "set_temperature", "get_time", "get_weather", "query_weather")
"""Tools with so few possible arguments that none are held out."""
SAME = (
    {"get_weather", "query_weather"}, {"search_web", "search_books", "get_news", "summarize_page"},
    {"get_directions", "get_route"}, {"run_shell", "list_files", "read_file", "git_commit"},
    {"send_email", "send_sms", "post_message"}, {"summarize_page", "download_file", "read_file"},
    {"create_image", "take_photo"}, {"get_directions", "book_flight"},
    {"create_event", "set_alarm"},
)  # fmt: skip


@cache
def _parameters(name: str) -> tuple[str, ...]:
    mine = next(
        line for line in tools.IRRELEVANT.strip().splitlines() if line.startswith(f"{name}|")
    )
    return tuple(item.split(":")[0] for item in mine.split("|")[2].split())


def _filled(wording: str, arguments: dict[str, Any]) -> str:
    for slot, value in arguments.items():
        wording = wording.replace(f"{{{slot}}}", str(value))
    return wording


def _told(draw: Draw, name: str) -> list[dict[str, Any]]:
    """A short result, and the answer that repeats it."""
    rng = draw.rng
    text = rng.choice(
        (files.sentence(rng), files.value(draw), f"{files.value(draw)}, {files.value(draw)}")
    )
    if rng.random() < 0.1:
        error = rng.choice(("timeout", "not allowed", "service unavailable", "no connection"))
        return [
            {"role": "tool", "content": f"Error: {error}"},
            chat.assistant(
                draw.say("The tool reports an error.", "工具报错了。"),
                draw.say(f"{name} failed: {error}", f"{name}失败：{error}"),
            ),
        ]
    shape = rng.choice(("{}", "{}", '{{"result": "{}"}}', "ok: {}", "exit code 0\n{}"))
    return [
        {"role": "tool", "content": shape.format(text)},
        chat.assistant(
            draw.say("I pass on the result.", "转告结果。"),
            draw.say(f"{name}: {text}", f"{name}：{text}"),
        ),
    ]


def _own_tool(draw: Draw) -> Conversation:
    """A command that the user names, for the agent's shell or one like it."""
    story = Story(draw, "tool_choice", ("run",))
    rng = draw.rng
    command = draw.operands(lambda: str(argument(draw, "command")), lambda c: ("command", c))
    wordings = choices()["run_shell"][draw.language]
    side = wordings[-1:] if draw.split is Split.PHRASINGS else wordings[:-1]
    story.user(phrasings.expand(rng.choice(side), rng).format(command=command))
    tool = story.box.calls["run"][0]
    story.call(draw.say(f"{tool} can do that.", f"用{tool}。"), "run", command=command)
    text = files.sentence(rng) if rng.random() < 0.7 else ""
    story.ran(text, 0)
    if text:
        content = draw.say(f"It printed: {text}", f"输出：{text}")
    else:
        content = draw.say("It printed nothing.", "没有输出。")
    story.answer(draw.say("I pass on the result.", "转告结果。"), content)
    return story.told()
