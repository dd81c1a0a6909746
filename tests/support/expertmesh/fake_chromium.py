"""A program that stands in for chromium: it speaks as much DevTools as a visit needs."""

import textwrap
from pathlib import Path

_PROGRAM = """#!/usr/bin/env python3
import json, os, subprocess, sys, time

def page():
{body}

def say(message):
    data = json.dumps(message).encode() + b"\\0"
    while data:
        data = data[os.write(4, data):]

def answer(method, given):
    if method == "Target.createTarget":
        return {{"targetId": "page"}}
    if method == "Target.attachToTarget":
        return {{"sessionId": "session"}}
    if method == "Page.navigate":
        global url, html
        url, html = given["url"], page()
        say({{"method": "Page.loadEventFired", "params": {{}}}})
        return {{"frameId": "page"}}
    if method == "Page.createIsolatedWorld":
        return {{"executionContextId": 1}}
    if method == "Runtime.evaluate":
        return {{"result": {{"value": json.dumps([url, False, html])}}}}
    return {{}}

data = b""
while piece := os.read(3, 65536):
    data += piece
    while b"\\0" in data:
        line, data = data.split(b"\\0", 1)
        asked = json.loads(line)
        say({{"id": asked["id"], "result": answer(asked["method"], asked["params"])}})
"""


def fake_chromium(folder: Path, body: str) -> str:
    """Its path. `body` is that of a function: it makes the HTML of whatever page is asked for.

    The folders are opened for other users, since the browser never is root.
    """
    folder.mkdir(exist_ok=True)
    for place in (folder, *folder.parents):
        if place.is_relative_to("/tmp") and place != Path("/tmp"):
            place.chmod(0o755)
    path = folder / "chromium"
    path.write_text(_PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    ")))
    path.chmod(0o755)
    return str(path)
