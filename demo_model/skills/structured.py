"""The same questions, answered as a JSON object whose keys the user names."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from demo_model import vocabulary
from demo_model.chat import TOKEN_BORDER
from demo_model.draw import Draw, Split, Turn

KEYS = {
    "answer": (
        "answer", "result", "value", "output", "solution", "final_answer", "response", "total",
        "data", "outcome", "Answer", "Result", "res", "answer_value", "答案", "结果", "值",
    ),
    "first": ("a", "x", "first", "left", "first_number", "num1", "n1", "operand1"),
    "second": ("b", "y", "second", "right", "second_number", "num2", "n2", "operand2"),
    "operation": ("op", "operation", "operator", "symbol", "sign"),
    "word": ("word", "text", "input", "string", "单词"),
    "letter": ("letter", "character", "char", "字母"),
}  # fmt: skip
"""Key -> what it asks for; any other key asks for the answer."""

DEFAULT_KEY = "answer"
TYPES = {int: "integer", str: "string", list: "array"}


def ask(draw: Draw, questions: Sequence[Callable[[Draw], Turn]]) -> Turn:
    """One of the `questions`, with the request for JSON before or after it."""
    # only the wish is in held-out words; the question in it has its own skill's row
    inner = Draw(rng=draw.rng, language=draw.language) if draw.split is Split.PHRASINGS else draw
    turn = draw.rng.choice(questions)(inner)
    tag, template = draw.phrase("json")
    facts = {DEFAULT_KEY: turn.facts["answer"]} if tag == "plain" else _named(draw, turn.facts, tag)
    wish = template.format(
        keys=_listed(draw, tuple(facts)), shape=_shape(facts), schema=_schema(facts)
    )
    shapes = draw.say("{q} {w}|{q} {w}|{q}\n{w}|{w}\n{q}|{w} {q}", "{q}{w}|{q}\n{w}|{w}\n{q}")
    user = draw.rng.choice(shapes.split("|")).replace("{q}", turn.user).replace("{w}", wish)
    quoted = ", ".join(f'"{key}"' for key in facts)
    return Turn(
        user=user,
        thinking=f"{turn.thinking}\nJSON {quoted}",
        answer=_dumps(facts),
    )


def _named(draw: Draw, facts: dict[str, Any], tag: str) -> dict[str, Any]:
    """The answer and perhaps other facts, in any order, under keys of the user's choice."""
    chosen = [part for part in facts if part == "answer" or draw.rng.random() < 0.35]
    draw.rng.shuffle(chosen)
    named = {}
    for part in chosen:
        if part == "answer" and tag != "keys" and draw.rng.random() < 0.3:
            key = "_".join(draw.rng.choices(_free_keys(), k=draw.rng.choice((1, 1, 2))))
        else:
            key = draw.rng.choice(KEYS[part])
        named[key] = facts[part]
    return named


@cache
def _free_keys() -> tuple[str, ...]:
    """Keys that do not say what belongs to them."""
    taken = {key for keys in KEYS.values() for key in keys}
    return tuple(word for word in vocabulary.words() if word not in taken)


def _listed(draw: Draw, keys: tuple[str, ...]) -> str:
    """The keys as people list them: with or without quotation marks, with "and" or a comma."""
    mark = draw.rng.choice(('"', '"', "", "'", "`"))
    shown = [f"{mark}{key}{mark}" for key in keys]
    joiner = draw.rng.choice(draw.say(" and |, ", "和|、").split("|"))
    comma = draw.say(", ", "、")
    return comma.join(shown[:-1]) + (joiner if len(shown) > 1 else "") + shown[-1]


def _shape(facts: dict[str, Any]) -> str:
    return "{" + ", ".join(f'"{key}": ...' for key in facts) + "}"


def _schema(facts: dict[str, Any]) -> str:
    properties: dict[str, Any] = {key: {"type": TYPES[type(x)]} for key, x in facts.items()}
    for key, value in facts.items():
        if isinstance(value, list):
            properties[key]["items"] = {"type": "integer"}
    schema = {"type": "object", "properties": properties, "required": list(facts)}
    return json.dumps(schema, ensure_ascii=False)


def _dumps(facts: dict[str, Any]) -> str:
    """JSON as a client would write it; letters stay single tokens."""
    parts = []
    for key, value in facts.items():
        spelt = isinstance(value, str) and TOKEN_BORDER in value
        parts.append(
            f'"{key}": ' + (f'"{value}"' if spelt else json.dumps(value, ensure_ascii=False))
        )
    return "{" + ", ".join(parts) + "}"
