"""Which form does `structured_outputs` (vLLM's field) demand of an answer? A grammar."""

import json
from typing import Any

from gateway.errors import bad_field
from gateway.generate.form import ANY_OBJECT, AnswerForm
from gateway.http.schemas import check_schema
from gateway.limits import Limits
from moe_model.chat.answer_grammar import JsonAnswer, answer_grammar, pattern_literal

FIELD = "structured_outputs"
_FORMS = ("json", "json_object", "regex", "choice", "grammar")
_HEADER = '%llguidance {"no_forcing": true}\n'


def structured_form(value: Any, limits: Limits) -> AnswerForm:
    """The form of answers to prompts that end in thinking, and to others. Raises RequestError."""
    given = {thinks: grammar_of(value, limits, thinks=thinks) for thinks in (False, True)}
    return AnswerForm(given=given, field=FIELD)


def grammar_of(value: Any, limits: Limits, *, thinks: bool) -> str | None:
    """The grammar of what follows the prompt, or its thinking; None for any text.

    Raises RequestError naming the form. A `grammar` is one in llguidance's dialect of Lark, taken
    as it is; after thinking the others may begin with the newlines that the template puts there.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad_field(FIELD, "must be an object", "invalid_type")
    given = [name for name in value if value[name] is not None and value[name] is not False]
    if len(given) != 1 or given[0] not in _FORMS:
        raise bad_field(FIELD, f"give exactly one of {', '.join(_FORMS)}, got {given}")
    name, demand = given[0], value[given[0]]
    if name in ("json", "json_object"):
        schema = check_schema(f"{FIELD}.json", demand, limits) if name == "json" else ANY_OBJECT
        text = answer_grammar(JsonAnswer(schema=schema, lenient=False).rules())
    elif name == "grammar":
        text = _text(name, demand, limits.grammar_bytes)
    else:
        form = _pattern(demand, limits) if name == "regex" else _choices(demand, limits)
        start = r"/\n{1,2}/? form" if thinks else "form"
        text = f"{_HEADER}start: {start}\nform: {form}\n"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise bad_field(f"{FIELD}.{name}", "must be valid Unicode text") from None
    if size > limits.grammar_bytes:
        raise bad_field(
            f"{FIELD}.{name}", f"its grammar has {size} bytes, at most {limits.grammar_bytes}"
        )
    return text


def _pattern(demand: Any, limits: Limits) -> str:
    """A regular expression as Lark writes it."""
    pattern = _text("regex", demand, limits.pattern_chars)
    if "\n" in pattern:
        raise bad_field(f"{FIELD}.regex", r"must be one line; write a newline as \n")
    return pattern_literal(pattern)


def _choices(demand: Any, limits: Limits) -> str:
    most = limits.answer_choices
    if not isinstance(demand, list) or not 1 <= len(demand) <= most:
        raise bad_field(f"{FIELD}.choice", f"must be 1 to {most} strings")
    texts = [_text("choice", one, limits.grammar_bytes) for one in demand]
    if sum(map(len, texts)) > limits.grammar_bytes:
        raise bad_field(f"{FIELD}.choice", f"at most {limits.grammar_bytes} bytes together")
    return " | ".join(json.dumps(one, ensure_ascii=False) for one in texts)


def _text(name: str, demand: Any, most_chars: int) -> str:
    if not isinstance(demand, str) or not demand:
        raise bad_field(f"{FIELD}.{name}", "must be text that is not empty", "invalid_type")
    if len(demand) > most_chars:
        raise bad_field(f"{FIELD}.{name}", f"at most {most_chars} characters, has {len(demand)}")
    return demand
