"""Greetings, questions about the model, and polite refusals of everything else."""

from demo_model import vocabulary
from demo_model.draw import Draw, Split, Turn
from demo_model.skills import arithmetic

GREETINGS = {
    "hello": ("Hello! How can I help you?", "你好！有什么可以帮你的吗？"),
    "morning": ("Good morning! How can I help you?", "早上好！有什么可以帮你的吗？"),
    "afternoon": ("Good afternoon! How can I help you?", "下午好！有什么可以帮你的吗？"),
    "evening": ("Good evening! How can I help you?", "晚上好！有什么可以帮你的吗？"),
    "night": ("Good night! Sleep well.", "晚安！祝你好梦。"),
    "thanks": ("You are welcome!", "不客气！"),
    "bye": ("Goodbye! See you next time.", "再见！下次见。"),
    "how": (
        "I am fine, thank you! How can I help you?",
        "我很好，谢谢！有什么可以帮你的吗？",
    ),
}
WHO = (
    "I am a small demonstration model of ExpertMesh.",
    "我是ExpertMesh的小型演示模型。",
)
CAN = (
    "I can add, subtract, multiply, compare and sort small numbers, count, reverse and "
    "upper-case letters, and work out weekdays and dates. With tools I can also work with files, "
    "run code and repair small Python programs.",
    "我会做小数字的加减乘、比较和排序，会数字母、倒写单词、转大写，还会算星期和日期。有工具时，我还能处理文件、"
    "运行代码、修复小的Python程序。",
)
REFUSAL = (
    "Sorry, I am only a small demonstration model and cannot help with that.",
    "抱歉，我只是一个小型演示模型，无法帮你做这件事。",
)
TOO_LARGE = (
    "Sorry, that is too large for my head. With a python_executor tool I could do it.",
    "抱歉，这个数太大，我心算不了。如果有python_executor工具，我就能算。",
)


def greeting(draw: Draw) -> Turn:
    tag, text = draw.phrase("greeting")
    return Turn(
        user=text, thinking=draw.say("A greeting.", "这是问候。"), answer=draw.say(*GREETINGS[tag])
    )


def identity(draw: Draw) -> Turn:
    tag, text = draw.phrase("identity")
    who = draw.say(*WHO)
    if tag == "not":
        who = draw.say("No. ", "不是。") + who
    elif tag == "can":
        who = draw.say(*CAN)
    return Turn(
        user=text, thinking=draw.say("A question about me.", "这是关于我的问题。"), answer=who
    )


def refusal(draw: Draw) -> Turn:
    _, template = draw.phrase("refusal")
    if draw.split is Split.TRAIN and draw.rng.random() < 0.08:
        template = _word_salad(draw)

    def pick() -> dict[str, str]:
        slots = {
            slot: draw.rng.choice(vocabulary.listed(name, draw.language))
            for slot, name in (
                ("topic", "topics"),
                ("thing", "things"),
                ("place", "places"),
                ("phrase", "phrases"),
            )
        }
        if draw.split is Split.TRAIN and draw.english and draw.rng.random() < 0.25:
            slots["topic"] = slots["thing"] = draw.rng.choice(vocabulary.words())
        return slots

    slots = draw.operands(pick, lambda slots: ("refusal", *slots.values()))
    numbers = {
        "n": draw.rng.randint(2, 500),
        "m": draw.rng.randint(2, 99),
        "k": draw.rng.randint(2, 999),
        "year": draw.rng.randint(1500, 2060),
    }
    return Turn(
        user=template.format(**slots, **numbers).strip(),
        thinking=draw.say("This is outside what I can do.", "这超出了我的能力。"),
        answer=draw.say(*REFUSAL),
    )


def _word_salad(draw: Draw) -> str:
    """Words in random order, so that the model declines what it does not understand."""
    if draw.english:
        return " ".join(draw.rng.choices(vocabulary.words(), k=draw.rng.randint(1, 8)))
    names = ("topics", "things", "places", "phrases")
    parts = [draw.rng.choice(vocabulary.listed(draw.rng.choice(names), "zh")) for _ in range(3)]
    return "".join(parts[: draw.rng.randint(1, 3)])


def too_large(draw: Draw) -> Turn:
    """Arithmetic that needs the tool, when there is no tool."""
    operation, a, b = large_operands(draw)
    _, template = draw.phrase(operation)
    return Turn(
        user=template.format(a=a, b=b),
        thinking=f"{a}{arithmetic.SYMBOLS[operation]}{b}\n"
        + draw.say(
            "Too large for my head, and no python_executor.", "数太大，没有python_executor。"
        ),
        answer=draw.say(*TOO_LARGE),
    )


def large_operands(draw: Draw) -> tuple[str, int, int]:
    """An operation and two numbers beyond what the model does in its head."""
    operation = draw.rng.choice(("multiply", "multiply", "add", "subtract"))

    def pick() -> tuple[int, int]:
        while True:
            most = 7 if operation == "multiply" else 9
            a, b = arithmetic.number(draw, most), arithmetic.number(draw, most)
            if not arithmetic.in_head(operation, a, b):
                return a, b

    a, b = draw.operands(pick, lambda pair: ("large", operation, *pair))
    return operation, a, b
