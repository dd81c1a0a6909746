"""Requests to the Responses API, and readers for what comes back."""

from typing import Any

import httpx
import orjson
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.responses.answers import ResponseAnswer, ResponseEvent
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a place",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
    },
}
PATCH = {"type": "custom", "name": "patch", "description": "Change files"}
AGENTS = {
    "type": "namespace",
    "name": "agents",
    "description": "Others",
    "tools": [{**WEATHER, "name": "ask", "description": "Ask one"}],
}
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_DIFFERS = ("id", "created_at", "completed_at", "item_id", "call_id")


def ask(
    gateway: Harness, *, path: str = "/v1/responses", headers: Any = None, **fields: Any
) -> httpx.Response:
    body = {"model": NAME, "input": "hello", **fields}
    given = {name: value for name, value in body.items() if value is not None}
    return gateway.post(path, given, headers=headers or {})


def events(text: str) -> list[dict[str, Any]]:
    """The data of each event, whose type is its name too and whose numbers count up.

    It is of OpenAI's models, and of those in /openapi.json.
    """
    found = []
    for block in text.strip().split("\n\n"):
        if block.startswith(":"):
            continue
        event, data = block.split("\n")
        found.append(orjson.loads(data.removeprefix("data: ")))
        assert event == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    for event in found:
        _EVENT.validate_python(event)
        ResponseEvent.model_validate(event)
    return found


def assembled(stream: list[dict[str, Any]]) -> dict[str, Any]:
    """The last event's response, after what the others said was compared with it."""
    assert [event["type"] for event in stream[:2]] == ["response.created", "response.in_progress"]
    response: dict[str, Any] = stream[-1]["response"]
    assert stream[-1]["type"] == f"response.{response['status']}"
    assert stream[0]["response"]["id"] == response["id"]
    done = [_item_of(group) for group in _by_item(stream[2:-1])]
    assert [item for item in done if item is not None] == response["output"]
    return response


def _by_item(stream: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups: list[list[dict[str, Any]]] = []
    for event in stream:
        if event["type"] == "error":
            continue
        if event["type"] == "response.output_item.added":
            groups.append([])
        groups[-1].append(event)
        assert event["output_index"] == len(groups) - 1
    return groups


def _item_of(group: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The whole item that the events of one item make; None if it never ended."""
    added, *middle, last = group
    item: dict[str, Any] = added["item"]
    for event in middle:
        assert event["item_id"] == item["id"]
    said = "".join(event["delta"] for event in middle if event["type"].endswith(".delta"))
    if last["type"] != "response.output_item.done":
        return None
    whole: dict[str, Any] = last["item"]
    kind = item["type"]
    if kind in ("message", "reasoning"):
        assert [event["type"] for event in (middle[0], middle[-1])] == [
            "response.content_part.added",
            "response.content_part.done",
        ]
        assert whole["content"] == [middle[-1]["part"]]
        assert said == whole["content"][0]["text"] == middle[-2]["text"]
        if kind == "message":
            logprobs = [one for event in middle[1:-2] for one in event["logprobs"]]
            assert logprobs == whole["content"][0]["logprobs"] == middle[-2]["logprobs"]
    else:
        key = "input" if kind == "custom_tool_call" else "arguments"
        assert said == whole[key] == middle[-1][key]
    assert (item["id"], item["status"]) == (whole["id"], "in_progress")
    return whole


def without_ids(value: Any) -> Any:
    """What does not differ from answer to answer."""
    if isinstance(value, dict):
        return {key: without_ids(one) for key, one in value.items() if key not in _DIFFERS}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


def both(gateway: Harness, **fields: Any) -> dict[str, Any]:
    """The whole answer, after it was compared with the streamed one."""
    whole = ask(gateway, **fields)
    assert whole.status_code == 200, whole.text
    response: dict[str, Any] = whole.json()
    Response.model_validate(response)
    ResponseAnswer.model_validate(response)
    streamed = assembled(events(ask(gateway, stream=True, **fields).text))
    assert without_ids(streamed) == without_ids(response)
    return response
