"""No schema hangs, crashes or fills the service: each is served or refused soon."""

import gc
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from attention_svc.grammar.checker import TOO_COSTLY, GrammarChecker
from tests.support.attention_svc.grammar_harness import VOCABULARY, Compiler, allowed, feed
from tests.support.attention_svc.grammars import json_grammar

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

ANSWERED_WITHIN_S = 30.0
"""Far above the limits of a check (2 s of processor time): the machine may be busy."""


def chain(kind: str, length: int, width: int) -> dict[str, Any]:
    """Definitions that each refer `width` times to the next: width ** length without sharing."""
    links = {f"d{i}": {kind: [ref(f"d{i + 1}")] * width} for i in range(length)}
    return {**ref("d0"), "$defs": {**links, f"d{length}": {"type": "integer"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = of_one("a", schema)
    return schema


def defined(**schemas: Any) -> dict[str, Any]:
    """Schema `a` of these, which may refer to each other."""
    return {**ref("a"), "$defs": schemas}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def of_one(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An object that must have this property."""
    return {"type": "object", "properties": {name: schema}, "required": [name]}


LETTERS = "abcdefghijklmnopqrstuvwxyz"
STRING, INTEGER = {"type": "string"}, {"type": "integer"}
HOSTILE: dict[str, Any] = {
    "deep": nested(200),
    "deeper than any stack": None,
    "huge enum": {"enum": [f"value {i}" for i in range(20_000)]},
    "many properties": {"type": "object", "properties": {f"p{i}": STRING for i in range(3_000)}},
    "many alternatives": {"anyOf": [of_one(f"p{i}", {"const": i}) for i in range(2_000)]},
    "self": {"$ref": "#"},
    "cycle": defined(a=ref("b"), b=ref("a")),
    "cycle of all": defined(a={"allOf": [ref("a"), {"properties": {"x": ref("a")}}]}),
    "endless array": defined(a={"type": "array", "items": ref("a"), "minItems": 2}),
    "remote": {"$ref": "https://example.com/schema.json"},
    "file": {"$ref": "file:///etc/passwd"},
    "anyOf chain": chain("anyOf", 30, 2),
    "allOf chain": chain("allOf", 30, 2),
    "oneOf chain": chain("oneOf", 12, 4),
    "tuple chain": chain("prefixItems", 20, 8),
    "giant maxLength": {"type": "string", "maxLength": 10**9},
    "giant minLength": {"type": "string", "minLength": 10**6},
    "giant minItems": {"minItems": 10**6, "items": {"type": "array", "minItems": 10**6}},
    "giant numbers": {
        **INTEGER,
        "minimum": -(10**300),
        "maximum": 10**300,
        "multipleOf": 999_999_937,
    },
    "nested quantifiers": {"type": "string", "pattern": "^(a+)+$"},
    "giant quantifiers": {"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"},
    "states": {"type": "string", "pattern": "^(.*a.{20}b|.*c.{22}d)+$"},
    "window": {"type": "string", "pattern": "^.*a.{1000}$"},
    "intersected patterns": {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in LETTERS]},
    "pattern keys": {"patternProperties": {f"{c}.*{c}.{{9}}": INTEGER for c in LETTERS}},
    "not an object": ["array"],
    "wrong types": {"type": 5, "properties": [], "required": "a", "enum": {}},
}


@pytest.fixture(scope="module")
def compiler():
    made = Compiler()
    yield made
    made.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_answered_soon_and_hurts_nobody(compiler: Compiler, name: str):
    schema = HOSTILE[name]
    # Written by hand: Python's own JSON cannot nest that deep.
    deep = "start: json\njson: %json " + '{"items":' * 50_000 + "{}" + "}" * 50_000
    text = deep if schema is None else json_grammar(schema)
    started_s = time.monotonic()
    try:
        state = compiler.start(text)
        for _ in range(50):  # and in use, where fuel bounds each step
            ids = allowed(state)
            if not ids or state.is_complete or not state.accept(ids[-1]):
                break
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = "grammar: none"
    assert refusal.startswith("grammar")
    assert len(refusal) < 400
    assert time.monotonic() - started_s < ANSWERED_WITHIN_S
    assert feed(compiler.start(json_grammar({"type": "integer"})), "12")


def anonymous_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def test_many_different_schemas_leave_nothing_behind(compiler: Compiler):
    def compile_some(numbers: range) -> None:
        for number in numbers:
            schema = {
                "type": "object",
                "required": [f"a{number}"],
                "properties": {
                    f"a{number}": {"type": "string", "pattern": f"^[a-z]{{{number % 50}}}$"}
                },
            }
            state = compiler.start(json_grammar(schema))
            assert feed(state, json.dumps({f"a{number}": "x" * (number % 50)}))
            assert state.is_complete

    compile_some(range(300))
    gc.collect()
    before_kib = anonymous_kib()
    compile_some(range(300, 1_000))
    gc.collect()
    assert anonymous_kib() - before_kib < 16 * 1024


def patterns(count: int) -> str:
    """Their intersection has 2 ** count states; it is not bounded by any fuel."""
    return json_grammar(
        {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in LETTERS[:count]]}
    )


async def test_a_check_that_takes_too_much_ends_its_process_and_the_next_one_is_warm():
    checker = GrammarChecker(VOCABULARY.size)
    await checker.start()
    first = checker._process
    assert await checker.check(patterns(24)) == TOO_COSTLY
    second = checker._process
    assert first is not None
    assert first.returncode == -signal.SIGXCPU
    assert second is not None
    assert second.returncode is None
    assert await checker.check(json_grammar({"type": "integer"})) == ""
    assert checker._process is second
    await checker.close()
    assert second.returncode == -signal.SIGKILL


PARENT = """
import asyncio, sys
from attention_svc.grammar.checker import GrammarChecker

async def main():
    checkers = [GrammarChecker(300), GrammarChecker(300)]
    for checker in checkers:
        await checker.start()
    print(*(checker._process.pid for checker in checkers), flush=True)
    await checkers[0].check(sys.stdin.readline())

asyncio.run(main())
"""


def test_no_process_outlives_a_service_that_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.stdin.write(patterns(24).encode() + b"\n")  # one of them is at work meanwhile
        parent.stdin.flush()
        parent.kill()
    gone, alive = psutil.wait_procs(children, timeout=ANSWERED_WITHIN_S)
    assert len(gone) == 2, alive
