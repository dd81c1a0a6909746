"""How does an assistant get data from a model? JSON of a schema, checked, and asked for again."""

from typing import Any

from expertmesh.agent.tools.schema import problems
from expertmesh.agent.turn import OnPiece
from expertmesh.assistants.extract import json_of
from expertmesh.assistants.model import Answer, Messages, Schema, TextModel, nobody_watches
from expertmesh.assistants.prompts import prompt

_TOLD = 5
"""So many faults of a value are told to the model."""


class UselessAnswerError(Exception):
    """The model gave no answer that can be used; the message is for people."""


async def ask_json(
    model: TextModel,
    messages: Messages,
    schema: Schema,
    *,
    language: str = "en",
    on_piece: OnPiece = nobody_watches,
) -> tuple[Any, Answer]:
    """The value and the answer that held it. Text that does not fit is asked for once more.

    Raises UselessAnswerError, which says what was wrong, and ChatError.
    """
    answer = whole(await model.ask(messages, schema=schema, on_piece=on_piece))
    value, faults = _read(answer, schema)
    if faults:
        told = "\n".join(f"- {one}" for one in faults[:_TOLD])
        again = [
            *messages,
            {"role": "assistant", "content": answer.text or "..."},
            {"role": "user", "content": prompt("mend_json", language, faults=told)},
        ]
        answer = whole(await model.ask(again, schema=schema, on_piece=on_piece))
        value, faults = _read(answer, schema)
    if faults:
        raise UselessAnswerError(
            f"the model's answer is not of the form that it was asked for, twice: {faults[0]}"
        )
    return value, answer


def whole(answer: Answer) -> Answer:
    """The same answer. Raises UselessAnswerError if it was cut off or is empty."""
    if answer.was_cut:
        tokens = answer.reply.completion_tokens
        raise UselessAnswerError(
            f"the model's answer was cut off after {tokens} tokens: allow more (--max-tokens), or "
            "ask about less at a time"
        )
    return answer


def _read(answer: Answer, schema: Schema) -> tuple[Any, list[str]]:
    try:
        value = json_of(answer.text)
    except ValueError as error:
        return None, [str(error)]
    faults = [one.replace("the arguments: ", "the whole: ") for one in problems(value, schema)]
    return value, faults
