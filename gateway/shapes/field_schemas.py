"""What may a field hold, in JSON Schema, where its Python type says less than is checked?

The numbers are those of the checks. What no schema can say, such as that the last message must have
a known role, is left out: such a request is a 400 although the schema takes it.
"""

from pydantic.config import JsonDict

from gateway.limits import Limits

STOP_STRING: JsonDict = {"type": "string", "minLength": 1, "maxLength": Limits.stop_chars}
STOP: JsonDict = {
    "anyOf": [
        STOP_STRING,
        {"type": "array", "items": STOP_STRING, "maxItems": Limits.stops},
        {"type": "null"},
    ]
}
LOGIT_BIAS: JsonDict = {
    "maxProperties": Limits.logit_bias,
    "propertyNames": {"pattern": "^[0-9]{1,10}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}
TOKEN_ID: JsonDict = {"type": "integer", "minimum": 0}
PROMPT: JsonDict = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {}, "minItems": 1},
    ]
}
"""Text, texts, ids, or lists of ids."""
TOP_LOGPROBS: JsonDict = {"minimum": 0, "maximum": Limits.top_logprobs}
MESSAGES: JsonDict = {"items": {"type": "object"}, "minItems": 1, "maxItems": Limits.messages}
TOOL: JsonDict = {
    "type": "object",
    "required": ["function"],
    "properties": {
        "type": {"enum": ["function", None]},
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}},
        },
    },
}
TOOLS: JsonDict = {"items": TOOL, "maxItems": Limits.tools}
OBJECT: JsonDict = {"anyOf": [{"type": "object"}, {"type": "null"}]}
TOOL_CHOICE: JsonDict = {
    "anyOf": [
        {"enum": ["auto", "none", "required"]},
        {"type": "object", "required": ["type"]},
        {"type": "null"},
    ]
}


def one_of(**fields: JsonDict) -> JsonDict:
    """Exactly one of these fields must be given; a null means absent."""
    return {
        "oneOf": [{"required": [name], "properties": {name: one}} for name, one in fields.items()]
    }
