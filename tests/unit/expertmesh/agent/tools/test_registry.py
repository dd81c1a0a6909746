"""Which calls reach a tool, and what a model is told about the others."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from expertmesh.agent.tools.registry import BadCallError, Registry
from expertmesh.agent.tools.tool import Effect, Result, Source, Status, object_schema


@dataclass
class Echo:
    name: str = "echo"
    description: str = "Says it again."
    parameters: dict[str, Any] = field(
        default_factory=lambda: object_schema({"text": {"type": "string"}})
    )
    effect: Effect = Effect.READS

    async def call(self, arguments: dict[str, Any]) -> Result:
        return Result(Status.OK, arguments["text"])


def test_a_fitting_call_comes_back_parsed() -> None:
    call = Registry([Echo()]).check("echo", '{"text": "hi"}')
    assert (call.tool.name, call.arguments) == ("echo", {"text": "hi"})


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("ehco", "{}", "no tool 'ehco'; did you mean echo? the tools are echo"),
        ("zzz", "{}", "no tool 'zzz'; the tools are echo"),
        ("echo", "", "echo: text is missing"),
        ("echo", '{"text": "a', "not JSON: Unterminated string"),
        ("echo", '["a"]', "must be a JSON object"),
        ("echo", '{"text": NaN}', "NaN is not a JSON value"),
        ("echo", '{"text": 1, "x": 2}', "text must be string, not 1; x: there is no such argument"),
        ("echo", '{"text": ' + "9" * 5000 + "}", "not JSON"),
        ("echo", "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_call_says_why(name: str, arguments: str, words: str) -> None:
    with pytest.raises(BadCallError) as caught:
        Registry([Echo()]).check(name, arguments)
    assert words in str(caught.value)


def test_many_faults_are_counted_not_listed() -> None:
    arguments = '{"text": "a", ' + ", ".join(f'"x{i}": 1' for i in range(9)) + "}"
    with pytest.raises(BadCallError, match="and 4 more"):
        Registry([Echo()]).check("echo", arguments)


def test_two_tools_of_one_name_or_a_name_that_servers_refuse() -> None:
    with pytest.raises(ValueError, match="two tools"):
        Registry([Echo(), Echo()])
    with pytest.raises(ValueError, match="letters, digits"):
        Registry([Echo(name="a.b")])


def test_definitions_keep_the_order_of_the_tools() -> None:
    registry = Registry([Echo(name="b"), Echo(name="a")])
    names = [one["function"]["name"] for one in registry.definitions()]
    assert names == registry.names == ["b", "a"]


def test_a_source_has_the_digest_of_the_whole_text() -> None:
    source = Source.of("a.txt:1-9", "x" * 1000)
    assert len(source.excerpt) == 300
    assert source.sha256 != Source.of("a.txt:1-9", "x" * 300).sha256
