"""Which parameters does a tool's JSON Schema declare and require, and of which types are they?

The schema comes from a caller: it is read defensively and within bounds, and nothing here raises.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

STRING_ONLY = frozenset({"string"})

_MAX_SCHEMA_DEPTH = 32
_MAX_SCHEMA_NODES = 1000
_EXACT_ALIASES = {
    "str": "string",
    "text": "string",
    "char": "string",
    "varchar": "string",
    "enum": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "decimal": "number",
    "bool": "boolean",
    "binary": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "arr": "array",
    "tuple": "array",
    "set": "array",
    "none": "null",
}
_PREFIX_ALIASES = (  # int64, uint8, long long, float32, dict[str, int], list[str] ...
    ("int", "integer"),
    ("uint", "integer"),
    ("long", "integer"),
    ("short", "integer"),
    ("unsigned", "integer"),
    ("num", "number"),
    ("float", "number"),
    ("double", "number"),
    ("dict", "object"),
    ("list", "array"),
    ("array", "array"),
    ("varchar", "string"),
)
_TYPE_NAMES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    str: "string",
}
_ALIASES = _EXACT_ALIASES | {name: name for name in _TYPE_NAMES.values()}


def declared_properties(parameters: Any) -> dict[str, Any]:
    """Schemas by name of the parameters that a tool declares, also by reference and `allOf`."""
    found: dict[str, Any] = {}
    for node in _subschemas(parameters, parameters, branches=("allOf",)):
        properties = node.get("properties")
        for name, schema in properties.items() if isinstance(properties, dict) else ():
            if isinstance(name, str):
                found.setdefault(name, schema)
    return found


def required_names(parameters: Any) -> frozenset[str]:
    """The declared parameters that have to be given."""
    names = {
        name
        for node in _subschemas(parameters, parameters, branches=("allOf",))
        if isinstance(node.get("required"), list)
        for name in node["required"]
        if isinstance(name, str)
    }
    return frozenset(names & declared_properties(parameters).keys())


def takes_others(parameters: Any) -> bool:
    """Whether the schema explicitly allows parameters beyond the declared ones."""
    others = parameters.get("additionalProperties") if isinstance(parameters, dict) else None
    return others is True or isinstance(others, dict)


def parameter_types(parameters: Any, name: str) -> frozenset[str]:
    """Types that a tool's `parameters` schema allows for one parameter; {"string"} if unsaid."""
    if not isinstance(parameters, dict):
        return STRING_ONLY
    schema = declared_properties(parameters).get(name)
    if schema is None:
        schema = parameters.get("additionalProperties")
    types = frozenset(
        found for node in _subschemas(schema, parameters) for found in _own_types(node)
    )
    return types or STRING_ONLY


def string_choices(parameters: Any, name: str) -> list[str]:
    """The texts that a parameter which may be a string is restricted to; [] for any text."""
    choices = _choices(declared_properties(parameters).get(name), parameters, 0)
    return list(dict.fromkeys(choices or ()))


def _choices(schema: Any, root: Mapping[str, Any], depth: int) -> list[str] | None:
    """None when there is no restriction."""
    if not isinstance(schema, dict) or depth > _MAX_SCHEMA_DEPTH:
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return [_as_raw(value) for value in values[:_MAX_SCHEMA_NODES]]
    if schema.get("type") == "null":
        return ["null"]
    if isinstance(schema.get("$ref"), str):
        return _choices(_resolve(schema["$ref"], root), root, depth + 1)
    branches = schema.get("anyOf") or schema.get("oneOf")
    if not isinstance(branches, list) or len(branches) > _MAX_SCHEMA_DEPTH:
        return None
    found = [_choices(branch, root, depth + 1) for branch in branches]
    if any(one is None for one in found):
        return None
    return [choice for one in found for choice in one or ()]


def _as_raw(value: Any) -> str:
    """A value as it stands in a parameter: a string raw, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _subschemas(
    schema: Any, root: Any, branches: tuple[str, ...] = ("anyOf", "oneOf", "allOf")
) -> Iterator[Mapping[str, Any]]:
    """The schema and what its branches and local references lead to, within bounds."""
    pending = [(schema, 0)]
    num_nodes = 0
    while pending and num_nodes < _MAX_SCHEMA_NODES:
        node, depth = pending.pop()
        num_nodes += 1
        if not isinstance(node, dict) or depth > _MAX_SCHEMA_DEPTH:
            continue
        yield node
        for key in branches:
            choices = node.get(key)
            if isinstance(choices, list):
                pending.extend((choice, depth + 1) for choice in choices)
        if isinstance(node.get("$ref"), str):
            pending.append((_resolve(node["$ref"], root), depth + 1))


def _resolve(reference: str, root: Any) -> Any:
    """What a reference inside the same schema points to; None for all others."""
    if not reference.startswith("#/"):
        return root if reference == "#" else None
    node: Any = root
    for part in reference[2:].split("/", maxsplit=_MAX_SCHEMA_DEPTH):
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and key.isdecimal() and len(key) < 6 and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict):
            node = node.get(key)
        else:
            return None
    return node


def _own_types(schema: Mapping[str, Any]) -> Iterator[str]:
    """Types a schema node names itself, by `type`, `enum` or `const`."""
    declared = schema.get("type")
    for name in declared if isinstance(declared, list) else [declared]:
        if isinstance(name, str):
            yield _canonical(name)
    values = schema.get("enum")
    for value in values[:_MAX_SCHEMA_NODES] if isinstance(values, list) else []:
        yield _TYPE_NAMES.get(type(value), "string")
    if "const" in schema:
        yield _TYPE_NAMES.get(type(schema["const"]), "string")


def _canonical(name: str) -> str:
    lowered = name.strip().lower()
    prefixed = (type_ for prefix, type_ in _PREFIX_ALIASES if lowered.startswith(prefix))
    return _ALIASES.get(lowered) or next(prefixed, "string")
