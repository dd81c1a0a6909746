"""Grammars compiled and walked token by token."""

from typing import Any

from moe_model.chat.answer_grammar import JsonAnswer, answer_grammar


def json_grammar(schema: Any, *, lenient: bool = False) -> str:
    return answer_grammar(JsonAnswer(schema=schema, lenient=lenient).rules())
