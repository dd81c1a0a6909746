"""An MCP server of a few lines, run as a script: what it does wrong is its argument."""

import json
import os
import sys
import time
from typing import Any

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOLS: list[dict[str, Any]] = [
    {"name": "echo", "description": "Says it again.\u200b", "inputSchema": SCHEMA},
    {"name": "read.file/now", "description": "x" * 5000, "inputSchema": {"type": "object"}},
    {"name": "environment", "inputSchema": {"type": "object"}},
    {"name": "fail", "inputSchema": {"type": "object"}},
    {"name": "picture", "inputSchema": {"type": "object"}},
    {"name": "hang", "inputSchema": {"type": "object"}},
    {"name": "die", "inputSchema": {"type": "object"}},
    {"name": "garbage", "inputSchema": {"type": "object"}},
]


def content(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    text = {
        "echo": arguments.get("text", ""),
        "environment": json.dumps([dict(os.environ), os.getcwd()]),
        "fail": "it did not work",
        "read.file/now": "read",
    }
    if name == "picture":
        return {"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]}
    if name == "hang":
        time.sleep(60)
    if name == "die":
        print("about to end", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "garbage":
        print("this is no JSON", flush=True)
    said = {"content": [{"type": "text", "text": text.get(name, "done")}]}
    return {**said, "isError": name == "fail"}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    method, given = request["method"], request.get("params", {})
    if method == "initialize":
        return {
            "protocolVersion": given["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "small", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        return content(given["name"], given.get("arguments") or {})
    return {}


def main() -> None:
    fault = sys.argv[1] if len(sys.argv) > 1 else ""
    if fault == "silent":
        time.sleep(60)
    if fault == "broken":
        print("no configuration found", file=sys.stderr, flush=True)
        sys.exit(2)
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            said = {"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
