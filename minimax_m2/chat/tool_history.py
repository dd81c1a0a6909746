"""How do the tool calls and tool results of earlier turns reach the template?"""

import json
import math
from typing import Any, NoReturn

from minimax_m2.chat.tools import require_parameter_name, require_tool_name
from minimax_m2.chat.unicode_text import require_valid_text

_MAX_ARGUMENT_DEPTH = 64


def normalise_tool_calls(field: str, calls: Any) -> list[dict[str, Any]]:
    """An assistant's tool calls with their arguments as mappings.

    Arguments may come as OpenAI's JSON string, as a mapping, or empty (null or ""). Raises
    ValueError naming the field for anything else, for non-finite numbers, and for names outside
    the rule of `minimax_m2/chat/tools.py`.
    """
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise ValueError(f"{field}: must be a list")
    return [_normalise_call(f"{field}[{index}]", call) for index, call in enumerate(calls)]


def order_tool_results(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put consecutive tool messages into the order of the calls that they answer.

    A run of tool messages is reordered only when every one of them has a `tool_call_id` and the
    last assistant message has exactly one call with that id; otherwise its order is kept. The
    ids themselves are dropped, since no template reads them.
    """
    ordered: list[dict[str, Any]] = []
    run: list[dict[str, Any]] = []
    rank_of_id: dict[str, int] = {}
    for message in messages:
        if message["role"] == "tool":
            run.append(message)
            continue
        ordered.extend(_sorted_run(run, rank_of_id))
        run = []
        ordered.append(message)
        if message["role"] == "assistant":
            rank_of_id = _rank_of_id(message.get("tool_calls", []))
    ordered.extend(_sorted_run(run, rank_of_id))
    return ordered


def _normalise_call(where: str, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise ValueError(f"{where}.function: must be an object")
    name = require_tool_name(f"{where}.function.name", function.get("name"))
    field = f"{where}.function.arguments"
    arguments = _parse_arguments(field, function.get("arguments"))
    for key in arguments:
        require_parameter_name(field, key)
    result: dict[str, Any] = {
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    if isinstance(call.get("id"), str):
        result["id"] = call["id"]
    return result


def _parse_arguments(field: str, arguments: Any) -> dict[str, Any]:
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments = json.loads(
                arguments, parse_constant=_refuse_constant, parse_float=_finite_float
            )
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{field}: must be a JSON object, cannot be parsed") from error
    elif arguments is None or isinstance(arguments, str):
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError(f"{field}: must be a JSON object, is {type(arguments).__name__}")
    _require_shallow(field, arguments)
    require_valid_text(field, arguments)
    return arguments


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is out of range")
    return value


def _require_shallow(field: str, arguments: dict[str, Any]) -> None:
    level: list[Any] = [arguments]
    for _ in range(_MAX_ARGUMENT_DEPTH):
        values = [v for item in level for v in (item.values() if isinstance(item, dict) else item)]
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise ValueError(f"{field}: nested deeper than {_MAX_ARGUMENT_DEPTH} levels")


def _rank_of_id(calls: list[dict[str, Any]]) -> dict[str, int]:
    """Position of each call by id; empty when an id is missing or used twice."""
    ids = [call.get("id") for call in calls]
    ranks = {call_id: rank for rank, call_id in enumerate(ids) if call_id is not None}
    return ranks if len(ranks) == len(ids) else {}


def _sorted_run(run: list[dict[str, Any]], rank_of_id: dict[str, int]) -> list[dict[str, Any]]:
    ids = [message.get("tool_call_id") for message in run]
    known = all(call_id in rank_of_id for call_id in ids) and len(set(ids)) == len(ids)
    if known:
        run = sorted(run, key=lambda message: rank_of_id[message["tool_call_id"]])
    return [{"role": "tool", "content": message["content"]} for message in run]
