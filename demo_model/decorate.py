"""In which small ways does the wording of a question vary? Training sees many variants.

Frames around a question move its words to other places, so the model cannot rely on
where in a wording the operands stand.
"""

from demo_model.draw import Draw

OPENERS = {
    "en": (
        "Please: ", "Hi! ", "Hello, ", "Hey, ", "Quick question: ", "Question: ", "OK. ",
        "Thanks. ", "So, ", "One more: ", "Next: ", "Now: ", "Please help: ", "Can you help? ",
        "I have a question. ", "Here is my question: ", "I was wondering: ", "Tell me: ",
        "I would like to know: ", "Let us see. ", "Good morning. ", "My next question: ",
        "Another one: ", "I need your help. ", "Well, ", "Try this: ", "Think carefully. ",
        "My friend asks: ", "For my homework: ", "Not sure about this: ",
    ),
    "zh": (
        "请问，", "你好，", "您好！", "问题：", "请帮忙：", "好的，", "谢谢。", "那么，", "下一个：",
        "请回答：", "帮个忙，", "嗨，", "我有个问题：", "我想知道，", "我想问一下，", "再来一个：",
        "请看这个：", "试试这个：", "麻烦你，", "能帮我吗？", "早上好，", "仔细想想：", "作业：",
        "我朋友问：",
    ),
}  # fmt: skip
REQUESTS = {
    "en": (
        "Can you ", "Could you ", "Would you ", "Could you please ", "Would you please ",
        "I want you to ", "I would like you to ", "I need you to ", "I'd like you to ",
        "Please ", "Help me: ", "Your task: ", "Try to ", "You should ", "Go and ",
        "It would be great if you could ", "Now please ", "I am asking you to ",
    ),
    "zh": ("请你", "麻烦你", "能不能", "可以", "我想请你", "你可以", "现在", "我要你", "帮我", "能否"),
}  # fmt: skip
CLOSERS = {
    "en": (
        " Thanks!", " Please.", " Thank you.", " Just the answer.", " Be quick.", " I am curious.",
        " Take your time.", " I need it today.", " Show me.", " Can you do that?", " Go.",
    ),
    "zh": ("谢谢！", "谢谢。", "请快一点。", "直接给答案。", "不着急。", "我很好奇。", "可以吗？", "麻烦了。"),
}  # fmt: skip
TAILS = {
    "en": (
        " please", " for me", " now", ", please", ", thanks", ", if you can", ", will you",
        " right away", " quickly",
    ),
    "zh": ("，谢谢", "，好吗", "，可以吗", "，麻烦了", "吧"),
}  # fmt: skip
DROPPED = (" the word", " these numbers", " the numbers", " the letter", " the", " please")
ENDS = ".?!。？！"
WITHOUT_TAIL = ("uppercase", "refusal")
"""Skills in which "now" at the end could be one of the words asked about."""


def decorate(draw: Draw, text: str, skill: str) -> str:
    """A variant of the question; greetings and the like change little."""
    rng = draw.rng
    bare = len(text) < 12 and not any(character.isdigit() for character in text)
    if bare or skill == "greeting":
        text = _small(text) if rng.random() < 0.2 else text
        return text.rstrip(ENDS) if rng.random() < 0.2 else text
    if draw.english and rng.random() < 0.12:
        victim = rng.choice(DROPPED)
        text = text.replace(victim, "", 1)
    dice = rng.random()
    if dice < 0.15 and _is_request(draw, text):
        text = rng.choice(REQUESTS[draw.language]) + _small(text)
        if rng.random() < 0.5:
            text = text.rstrip(ENDS) + rng.choice(("?", ".", ""))
    elif dice < 0.28:
        text = rng.choice(OPENERS[draw.language]) + text
    elif dice < 0.35 and text[-1] in ENDS:
        text = text + rng.choice(CLOSERS[draw.language])
    elif dice < 0.42 and skill not in WITHOUT_TAIL:
        end = text[-1] if text[-1] in ENDS and rng.random() < 0.5 else ""
        text = text.rstrip(ENDS) + rng.choice(TAILS[draw.language]) + end
    elif dice < 0.52:
        text = text.rstrip(ENDS)
    if rng.random() < 0.1:
        text = _small(text)
    if rng.random() < 0.03:
        text += rng.choice((" ", "\n", "!", " :)", "!!"))
    return text


def _is_request(draw: Draw, text: str) -> bool:
    """Whether the wording is an imperative, so that it can follow "Could you ..."."""
    if not draw.english:
        return text[:1] in "把将算求计比排倒反写数统给转"
    return text.split(" ", 1)[0] in ORDERS


ORDERS = frozenset(
    [
        "Add",
        "Subtract",
        "Multiply",
        "Compute",
        "Calculate",
        "Work",
        "Tell",
        "Find",
        "Give",
        "Evaluate",
        "Sort",
        "Put",
        "Order",
        "Arrange",
        "Rank",
        "List",
        "Count",
        "Reverse",
        "Spell",
        "Write",
        "Turn",
        "Read",
        "Flip",
        "Convert",
        "Make",
        "Change",
        "Show",
        "Print",
        "Transform",
        "Pick",
        "Take",
        "Solve",
        "Upper-case",
        "Uppercase",
        "Capitalise",
        "Say",
        "Output",
        "Display",
        "Type",
        "Compare",
    ]
)


def _small(text: str) -> str:
    return text[0].lower() + text[1:] if text[:1].isascii() else text
