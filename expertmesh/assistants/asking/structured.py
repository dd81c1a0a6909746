"""How does an assistant get data from a model? JSON of a schema, checked, and asked for again."""

from collections.abc import Callable
from typing import Any

from expertmesh.agent.loop.turn import OnPiece
from expertmesh.agent.tools.schema import problems
from expertmesh.assistants.asking.extract import json_of
from expertmesh.assistants.asking.model import Answer, Messages, Schema, TextModel, nobody_watches
from expertmesh.assistants.prompts import prompt
from expertmesh.clients.chat import Reply

_TOLD = 5
"""So many faults of a value are told to the model."""


class UselessAnswerError(Exception):
    """The model gave no answer that can be used; the message is for people."""


class CutOffError(UselessAnswerError):
    """It ended at a limit of tokens."""


async def ask_json(
    model: TextModel,
    messages: Messages,
    schema: Schema,
    *,
    language: str = "en",
    on_piece: OnPiece = nobody_watches,
    on_answer: Callable[[Reply], None] = lambda reply: None,
) -> tuple[Any, Answer]:
    """The value and the answer that held it. Text that does not fit is asked for once more.

    Raises UselessAnswerError, which says what was wrong, and ChatError.
    """
    answer = await model.ask(messages, schema=schema, on_piece=on_piece)
    on_answer(answer.reply)
    whole(answer)
    value, faults = _read(answer, schema)
    if faults:
        told = "\n".join(f"- {one}" for one in faults[:_TOLD])
        again = [
            *messages,
            {"role": "assistant", "content": answer.text or "..."},
            {"role": "user", "content": prompt("mend_json", language, faults=told)},
        ]
        answer = await model.ask(again, schema=schema, on_piece=on_piece)
        on_answer(answer.reply)
        whole(answer)
        value, faults = _read(answer, schema)
    if faults:
        raise UselessAnswerError(
            f"the model's answer is not of the form that it was asked for, twice: {faults[0]}"
        )
    return value, answer


def whole(answer: Answer) -> Answer:
    """The same answer. Raises CutOffError if it was cut off."""
    if answer.was_cut:
        tokens = answer.reply.completion_tokens
        raise CutOffError(
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
