"""Does anything below the dialects know HTTP, or a dialect's words?"""

import ast
import dataclasses
import re
from http import HTTPStatus
from pathlib import Path

import pytest

from gateway.generate.parameters import Parameters
from gateway.openai.models import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    StreamOptions,
    TokenizeRequest,
)
from tests.support.places import ROOT
from tests.support.syntax import nodes, strings

CORE = ("gateway/errors.py", "gateway/text", "gateway/generate")
HTTP_MODULES = {"starlette", "fastapi", "uvicorn", "h11", "http", "openai"}
STATUSES = {status.value for status in HTTPStatus if status >= 400} | {499}
OURS = {field.name for field in dataclasses.fields(Parameters)}
"""Parameters that errors of the core name; every dialect calls them so."""
BODIES = (ChatRequest, CompletionRequest, TokenizeRequest, DetokenizeRequest, StreamOptions)
FIELDS = {name for body in BODIES for name in body.model_fields} - OURS
FIELD_PATH = re.compile(r"([a-z_]+)(?:[\[.:].*)?", re.DOTALL)
ENDPOINT = re.compile(r"\b(GET|POST|HTTP)\b|/v\d")
EXCEPT = {
    ("gateway/errors.py", "model"),  # every API calls it so
    ("gateway/text/returned_thinking.py", "tool_calls"),  # of a turn as the chat template takes it
    ("gateway/generate/stream.py", "tokens"),  # an event of our own wire
    ("gateway/generate/replica.py", 500),  # characters of a log line
}


def sources() -> list[Path]:
    return [
        path
        for place in CORE
        for path in (
            [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
        )
    ]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_knows_neither_http_nor_a_dialects_words(path: Path) -> None:
    where = str(path.relative_to(ROOT))
    wrong = []
    for node in nodes(path):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        wrong += [
            f"{where}:{node.lineno} imports {name}"
            for name in names
            if name.partition(".")[0] in HTTP_MODULES
            or name.startswith(("gateway.http", "gateway.openai", "gateway.config"))
        ]
        if (
            isinstance(node, ast.Constant)
            and type(node.value) is int
            and node.value in STATUSES - {n for w, n in EXCEPT if w == where}
        ):
            wrong.append(f"{where}:{node.lineno} names the status {node.value}")
    for text, line in strings(path):
        if ENDPOINT.search(text):
            wrong.append(f"{where}:{line} names an endpoint: {text!r:.60}")
        match = FIELD_PATH.fullmatch(text)
        if match and match[1] in FIELDS and (where, match[1]) not in EXCEPT:
            wrong.append(f"{where}:{line} names the field {text!r:.60}")
    assert not wrong, "\n".join(wrong)


def test_no_dialect_imports_another() -> None:
    """What two dialects need belongs below both."""
    folders = {
        path.parent.name
        for path in (ROOT / "gateway").glob("*/dialect.py")
        if path.parent.name != "http"
    }
    assert "openai" in folders
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {node.module}"
        for folder in folders | {"http"}
        for path in (ROOT / "gateway" / folder).rglob("*.py")
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom)
        and any((node.module or "").startswith(f"gateway.{one}") for one in folders - {folder})
    ]
    assert not wrong, "\n".join(wrong)
