"""Which form does `structured_outputs` (vLLM's field) demand of a completion? A grammar."""

import json
import re
from typing import Any

import orjson

from gateway.errors import bad_field
from gateway.limits import Limits
from minimax_m2.chat.grammars import JsonAnswer, answer_grammar
from protos import attention_pb2

FIELD = "structured_outputs"
_FORMS = ("json", "json_object", "regex", "choice", "grammar")
_HEADER = '%llguidance {"no_forcing": true}\n'
_MAX_CHOICES = 1000


def output_form(value: Any, limits: Limits, *, thinks: bool) -> attention_pb2.Grammar | None:
    """The grammar of what follows the prompt, or its thinking; None for any text.

    Raises ApiError 400 naming the form. A `grammar` is one in llguidance's dialect of Lark, taken
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
        text = answer_grammar(JsonAnswer(schema=_schema(name, demand, limits), lenient=False))
    elif name == "grammar":
        text = _text(name, demand)
    else:
        form = _pattern(demand) if name == "regex" else _choices(demand)
        start = r"/\n{1,2}/? form" if thinks else "form"
        text = f"{_HEADER}start: {start}\nform: {form}\n"
    return attention_pb2.Grammar(kind=attention_pb2.GRAMMAR_KIND_LARK, text=text)


def _schema(name: str, demand: Any, limits: Limits) -> Any:
    if name == "json_object":
        return {"type": "object"}
    if isinstance(demand, str):
        try:
            demand = orjson.loads(demand)
        except orjson.JSONDecodeError as error:
            raise bad_field(f"{FIELD}.json", f"not valid JSON ({error})") from None
    if not isinstance(demand, dict | bool):
        raise bad_field(f"{FIELD}.json", "must be a JSON Schema: an object", "invalid_type")
    size = len(orjson.dumps(demand))
    if size > limits.schema_bytes:
        raise bad_field(f"{FIELD}.json", f"at most {limits.schema_bytes} bytes, has {size}")
    return demand


def _pattern(demand: Any) -> str:
    """A regular expression as Lark writes it; slashes in it are escaped once."""
    pattern = _text("regex", demand)
    if "\n" in pattern:
        raise bad_field(f"{FIELD}.regex", r"must be one line; write a newline as \n")
    return "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", pattern) + "/"


def _choices(demand: Any) -> str:
    if not isinstance(demand, list) or not 1 <= len(demand) <= _MAX_CHOICES:
        raise bad_field(f"{FIELD}.choice", f"must be 1 to {_MAX_CHOICES} strings")
    return " | ".join(json.dumps(_text("choice", one), ensure_ascii=False) for one in demand)


def _text(name: str, demand: Any) -> str:
    if not isinstance(demand, str) or not demand:
        raise bad_field(f"{FIELD}.{name}", "must be text that is not empty", "invalid_type")
    return demand
