"""A model of which a test says what it calls, without a server."""

import json
from typing import Any

from expertmesh.agent.loop.turn import OnPiece
from expertmesh.clients.chat import Reply


class ScriptedModel:
    """A model that makes these calls one after another, and then answers."""

    def __init__(self, calls: list[tuple[str, dict[str, Any]]], last: str):
        self._calls = iter(enumerate(calls))
        self._last = last
        self.read: list[str] = []

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], on_piece: OnPiece
    ) -> Reply:
        self.read += [one["content"] for one in messages[-1:] if one["role"] == "tool"]
        number, call = next(self._calls, (0, None))
        if call is None:
            return Reply(content=self._last, finish_reason="stop")
        function = {"name": call[0], "arguments": json.dumps(call[1])}
        made = [{"id": f"call_{number}", "type": "function", "function": function}]
        return Reply(tool_calls=made, finish_reason="tool_calls")
