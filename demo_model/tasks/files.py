"""What does the model do with files by name: read them, write them, rename what is in them?"""

import random

from demo_model import vocabulary
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.programs import naming
from demo_model.programs.templates import fill, held_out, trained
from demo_model.tasks import debugging
from demo_model.tasks.story import Story

ENDINGS = ("txt", "txt", "md", "cfg", "log", "ini", "csv", "text", "conf", "yaml", "json")
KEYS_EN = ("port", "owner", "colour", "version", "budget", "deadline", "room", "address",
           "price", "manager", "city", "limit", "host", "name", "phone", "size", "level",
           "password")  # fmt: skip
KEYS_ZH = ("端口", "负责人", "颜色", "版本", "预算", "截止日期", "房间", "地址", "密码", "价格", "经理",
           "城市", "上限", "主机", "名称", "电话", "大小", "级别")  # fmt: skip


def file_name(draw: Draw) -> str:
    """A name of one or two words, perhaps in a folder; held out by its words."""
    rng = draw.rng

    def pick() -> str:
        name = rng.choice(("_", "-", "")).join(
            rng.sample(vocabulary.words(), rng.choice((1, 1, 2)))
        )
        folder = rng.choice(
            ("", "", "", "docs/", "data/", "src/", f"{rng.choice(vocabulary.words())}/")
        )
        number = rng.choice(("", "", "", str(rng.randint(1, 99))))
        return f"{folder}{name}{number}.{rng.choice(ENDINGS)}"

    return draw.operands(pick, lambda name: ("file", name))


def value(draw: Draw) -> str:
    rng = draw.rng
    kind = rng.randrange(5)
    if kind == 0:
        return str(rng.randint(1, 10 ** rng.randint(1, 5)))
    if kind == 1:
        return " ".join(rng.sample(vocabulary.words(), rng.randint(1, 3)))
    if kind == 2:
        return f"{rng.randint(0, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}"
    if kind == 3:
        return f"20{rng.randint(10, 39)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    return f"{rng.choice(vocabulary.words()).capitalize()}{rng.randint(1, 99)}"


def sentence(rng: random.Random) -> str:
    text = " ".join(rng.sample(vocabulary.words(), rng.randint(2, 7)))
    return text.capitalize() + rng.choice((".", "", "!"))


def read(draw: Draw) -> Conversation:
    """A question about a file that has to be read first."""
    story = Story(draw, "read_file", ("view",))
    rng = draw.rng
    file = file_name(draw)
    tag, template = draw.phrase("read_file")
    keys = rng.sample(KEYS_EN if draw.english or rng.random() < 0.3 else KEYS_ZH, rng.randint(2, 6))
    colon = rng.choice((": ", " = ", ":", "="))
    facts = {key: value(draw) for key in keys}
    lines = [f"{key}{colon}{fact}" for key, fact in facts.items()]
    if rng.random() < 0.5:
        lines.insert(rng.randint(0, len(lines)), sentence(rng))
    asked = rng.choice(keys)
    story.user(template.format(file=file, key=asked))
    story.call(story.say(f"I read {file}.", f"我读{file}。"), "view", path=file)
    if rng.random() < 0.12:
        return _missing(story, file)
    story.viewed(file, "\n".join(lines) + "\n")
    cite = f" [{story.num_sources}]" if story.box.is_agent else ""
    if tag == "fact" and rng.random() < 0.15:
        of_language = KEYS_EN if asked in KEYS_EN else KEYS_ZH
        other = rng.choice([key for key in of_language if key not in facts])
        story.messages[-3]["content"] = template.format(file=file, key=other)
        story.answer(
            story.say(f"There is no {other} in it.", f"里面没有{other}。"),
            story.say(f"{file} does not say the {other}.", f"{file}里没有{other}。"),
        )
        return story.told()
    thinking, answer = _said(story, tag, file, asked, facts, lines)
    story.answer(thinking, answer + cite)
    return story.told()


def _said(
    story: Story, tag: str, file: str, asked: str, facts: dict[str, str], lines: list[str]
) -> tuple[str, str]:
    say = story.say
    if tag == "fact":
        fact = facts[asked]
        return say(f"{asked}: {fact}", f"{asked}：{fact}"), say(
            f"The {asked} is {fact}.", f"{asked}是{fact}。"
        )
    if tag == "first":
        return say("The first line.", "第一行。"), say(
            f"The first line is: {lines[0]}", f"第一行是：{lines[0]}"
        )
    if tag == "last":
        return say("The last line.", "最后一行。"), say(
            f"The last line is: {lines[-1]}", f"最后一行是：{lines[-1]}"
        )
    if tag == "lines":
        counted = " ".join(f"{n}" for n in range(1, len(lines) + 1))
        return counted, say(f"{file} has {len(lines)} lines.", f"{file}有{len(lines)}行。")
    text = "\n".join(lines)
    return say("I show what I read.", "显示读到的内容。"), f"{text}"


def _missing(story: Story, file: str) -> Conversation:
    story.missing(file)
    story.answer(
        story.say("There is no such file.", "没有这个文件。"),
        story.say(f"There is no file {file}.", f"没有文件{file}。"),
    )
    return story.told()


def write(draw: Draw) -> Conversation:
    """A file is written, appended to or edited; texts are copied from the user."""
    tag, template = draw.phrase("write_file")
    role = {"write": "write", "replace": "edit", "append": "append"}[tag]
    story = Story(draw, "write_file", (role,)) if role != "append" else _appender(draw)
    rng = draw.rng
    file, text, old = file_name(draw), sentence(rng), sentence(rng)
    story.user(template.format(file=file, text=text, old=old))
    if tag == "replace":
        story.call(
            story.say(f"I edit {file}.", f"我编辑{file}。"), "edit", path=file, old=old, new=text
        )
        if rng.random() < 0.2:
            story.not_matched(file, f"{sentence(rng)}\n")
            story.answer(
                story.say("The old text is not in the file.", "文件里没有旧文字。"),
                story.say(f'{file} does not contain "{old}".', f"{file}里没有“{old}”。"),
            )
            return story.told()
        before = "".join(f"{sentence(rng)}\n" for _ in range(rng.randint(0, 12)))
        story.edited(file, f"{before}{old}\n", f"{before}{text}\n")
        story.answer(
            story.say("Done.", "完成。"), story.say(f"I changed {file}.", f"已修改{file}。")
        )
        return story.told()
    story.call(story.say(f"I write {file}.", f"我写{file}。"), role, path=file, content=f"{text}\n")
    if role == "append":
        story.written(file, f"{old}\n")
        done = story.say(f"I added the line to {file}.", f"已把这一行加到{file}。")
    else:
        story.written(file)
        done = story.say(f"I wrote {file}.", f"已写入{file}。")
    story.answer(story.say("Done.", "完成。"), done)
    return story.told()


def _appender(draw: Draw) -> Story:
    """Only the agent's editor appends."""
    story = Story(draw, "write_file", ("write",), agent_share=1.0)
    story.box.calls["append"] = story.agent_role("append")
    return story


def _around(line: int, text: str) -> str:
    """A valid module that has this text in this line."""
    above = "def main():" if text.startswith(" ") else ""
    below = "    return None" if text.endswith(":") else ""
    return "\n".join([*[""] * (line - 2), *([above] if line > 1 else []), text, below]) + "\n"


def rename(draw: Draw) -> Conversation:
    """A function gets another name in two or three files: search, edit each, search again."""
    story = Story(draw, "rename", ("search", "edit"))
    rng = draw.rng
    templates = held_out() if draw.split is Split.TEMPLATES else trained()
    template = rng.choice(templates)
    side = draw.split is Split.OPERANDS
    old, new = naming.pick(rng, template.functions, held_out=side), ""
    while new in ("", old):
        new = "_".join(rng.sample(vocabulary.words(), 2))
    names = {"f": old, **{slot: slot for slot in template.slots}}
    head = fill(template.lines[0], names)
    modules = rng.sample(naming.MODULES, 2)
    places = [(f"{modules[0]}.py", rng.choice((1, 1, 4, 7)), head)]
    for module in modules[1:]:
        places.append((f"{module}.py", 1, f"from {modules[0]} import {old}"))
        places.append(
            (f"{module}.py", rng.randint(5, 20), f"    print({old}({rng.randint(1, 9)}))")
        )
    _, wording = draw.phrase("rename")
    task = wording.format(old=old, new=new)
    if draw.split is not Split.PHRASINGS and story.box.is_agent and rng.random() < 0.5:
        story.user(debugging.ask_to_refactor(draw, task), draw.language)
    else:
        story.user(task)
    story.call(story.say(f"I search for {old}.", f"我搜索{old}。"), "search", query=old)
    found = "\n".join(f"{file}:{line}: {text}" for file, line, text in places)
    story.searched(found)
    for number, (file, line, text) in enumerate(places, 1):
        thinking = story.say(
            f"{number} of {len(places)}: {file}, line {line}.",
            f"第{number}处，共{len(places)}处：{file}第{line}行。",
        )
        story.call(
            thinking, "edit", path=file, old=text.strip(), new=text.strip().replace(old, new)
        )
        story.edited(file, _around(line, text), _around(line, text.replace(old, new)))
    story.call(story.say("Is any left? I search again.", "还有吗？再搜索。"), "search", query=old)
    story.searched("no matches")
    files = ", ".join(dict.fromkeys(file for file, _, _ in places))
    story.answer(
        story.say("None is left.", "没有了。"),
        story.say(f"I renamed {old} to {new} in {files}.", f"已在{files}中把{old}改名为{new}。"),
    )
    return story.told()
