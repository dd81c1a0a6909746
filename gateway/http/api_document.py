"""What does /openapi.json say? It is made from the models that read bodies, and those of answers.

A request model is the one that the endpoint validates with; a model of answers forbids what it does
not list, and the tests compare real answers with it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.http.dialect import Answer, Dialect, Endpoint, Query
from gateway.http.errors import STATUS

_REF = "#/components/schemas/{model}"
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
_NO_CLIENT = 499
"""The client that would read it has left."""
_SCHEMES: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One path and method, as the document has it."""

    path: str
    method: str
    endpoint: Endpoint
    tag: str
    answers: Sequence[Answer]
    """One for each dialect that may answer; empty: any JSON."""
    errors: Sequence[type[BaseModel]]
    body: type[BaseModel] | None = None
    needs_key: bool = True
    stream_type: str = "text/event-stream"
    headers: Sequence[str] = ()
    """Of the request: they decide which dialect answers."""
    queries: Sequence[Query] = ()


def own(
    dialect: Dialect,
    method: str,
    path: str,
    endpoint: Endpoint,
    body: type[BaseModel] | None = None,
    answer: Answer | None = None,
) -> Operation:
    """What one dialect alone does. `answer`: where it is not the path's."""
    told = answer or dialect.answers.get(path)
    return Operation(
        path=path,
        method=method,
        endpoint=endpoint,
        tag="text",
        answers=[told] if told else [],
        errors=[dialect.error_model] if dialect.error_model else [],
        body=body,
        stream_type=dialect.stream_type,
    )


def get(dialects: Sequence[Dialect], path: str, endpoint: Endpoint) -> Operation:
    """What is asked of several dialects under one path."""
    return Operation(
        path=path,
        method="get",
        endpoint=endpoint,
        tag="models",
        answers=[one.answers[path] for one in dialects if path in one.answers],
        errors=[one.error_model for one in dialects if one.error_model],
        headers=[one.header.decode() for one in dialects if one.header],
        queries=[query for one in dialects for query in one.queries.get(path, ())],
    )


def api_document(
    operations: Sequence[Operation], *, title: str, version: str, has_keys: bool
) -> dict[str, Any]:
    """The whole document. `has_keys`: whether a request needs one."""
    models = dict.fromkeys(model for one in operations for model in _models(one))
    refs, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF
    )
    schema_of = {model: refs[model, "validation"] for model in models}
    paths: dict[str, Any] = {}
    for one in operations:
        shown = _PATH_PARAMETER.sub(r"{\1}", one.path)
        paths.setdefault(shown, {})[one.method] = _operation(one, schema_of, has_keys)
    document = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": dict(_SCHEMES),
        },
        "security": [{name: []} for name in _SCHEMES] if has_keys else [],
    }
    named: dict[str, Any] = _renamed(document, _short_names(definitions.get("$defs", {}), models))
    return named


def _short_names(
    definitions: Mapping[str, Any], models: Mapping[type[BaseModel], Any]
) -> dict[str, str]:
    """For models of one name, which have their modules in it: the first keeps it, another is called
    by its package too."""
    taken = set(definitions)
    short: dict[str, str] = {}
    first = [f"{one.__module__}.{one.__qualname__}".replace(".", "__") for one in models]
    for name in [one for one in (*first, *definitions) if one in definitions and "__" in one]:
        _, package, *_, bare = name.split("__")
        if name not in short:
            short[name] = bare if bare not in taken else package.capitalize() + bare
            taken.add(short[name])
    return short


def _renamed(value: Any, short: Mapping[str, str]) -> Any:
    """With these names in the keys of schemas and in references."""
    if isinstance(value, dict):
        return {short.get(key, key): _renamed(one, short) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, short) for one in value]
    if isinstance(value, str) and value.startswith("#/"):
        head, _, name = value.rpartition("/")
        return f"{head}/{short.get(name, name)}"
    return value


def _models(one: Operation) -> Iterator[type[BaseModel]]:
    if one.body is not None:
        yield one.body
    for answer in one.answers:
        yield from (model for model in (answer.whole, answer.event) if model is not None)
    yield from one.errors


def _operation(
    one: Operation, schema_of: Mapping[type[BaseModel], Any], has_keys: bool
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": [one.tag],
        "summary": (one.endpoint.__doc__ or "").strip().partition("\n")[0],
        "operationId": re.sub(r"\W+", "_", f"{one.method}{one.path}").strip("_"),
        "responses": {**_answers(one, schema_of), **_errors(one, schema_of)},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PARAMETER.findall(one.path)
    ]
    parameters += [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
        for name in one.headers
    ]
    parameters += [
        {
            "name": query.name,
            "in": "query",
            "required": False,
            "schema": query.schema,
            "description": query.description,
        }
        for query in one.queries
    ]
    if parameters:
        described["parameters"] = parameters
    if one.body is not None:
        content = {"application/json": {"schema": schema_of[one.body]}}
        described["requestBody"] = {"required": True, "content": content}
    if has_keys and not one.needs_key:
        described["security"] = []
    return described


def _answers(one: Operation, schema_of: Mapping[type[BaseModel], Any]) -> dict[str, Any]:
    if not one.answers:
        return {"200": {"description": "The answer", "content": {"application/json": {}}}}
    told: dict[str, Any] = {}
    statuses = sorted({status for answer in one.answers for status in answer.statuses})
    for status in statuses:
        content: dict[str, Any] = {}
        some = [answer for answer in one.answers if status in answer.statuses]
        whole = [schema_of[answer.whole] for answer in some if answer.whole is not None]
        events = [schema_of[answer.event] for answer in some if answer.event is not None]
        if whole:
            content["application/json"] = {"schema": _any_of(whole)}
        if events:
            # Each event's data; 3.1 has no schema for a stream.
            content[one.stream_type] = {"x-event-data": _any_of(events)}
        if any(answer.is_text for answer in some):
            content["text/plain"] = {"schema": {"type": "string"}}
        told[str(status)] = {"description": some[0].description, "content": content}
    return told


def _errors(one: Operation, schema_of: Mapping[type[BaseModel], Any]) -> dict[str, Any]:
    taken = {status for answer in one.answers for status in answer.statuses}
    statuses = {*STATUS.values(), *(405, 408, 431, 529)} - {_NO_CLIENT} - taken
    schemas = [schema_of[model] for model in one.errors]
    content = {"application/json": {"schema": _any_of(schemas)} if schemas else {}}
    return {
        str(status): {"description": "An error", "content": content} for status in sorted(statuses)
    }


def _any_of(schemas: Sequence[Any]) -> Any:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
