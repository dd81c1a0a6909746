"""Over HTTP: nothing in old turns makes the next request of a session fail."""

import copy
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from moe_model.text.tokenizer import Tokenizer
from tests.support.examples import examples
from tests.support.gateway.answers import WEATHER, thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness, LoopThread, ready_status
from tests.support.gateway.model import EOS, NAME, write_tiny_model

USER: Any = {"role": "user", "content": "hello"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CONTEXT = 50_000


@pytest.fixture(scope="module")
def shared(loop_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    folder = write_tiny_model(tmp_path_factory.mktemp("roomy"), context=CONTEXT)
    harness = Harness(loop_thread, folder, status=ready_status(CONTEXT))
    yield harness
    harness.close()


@pytest.fixture
def gateway(shared: Harness, tokenizer: Tokenizer) -> Harness:
    shared.reset()
    shared.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    return shared


def history(arguments: Any, name: Any = "weather") -> list[Any]:
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "error: bad arguments"},
        {"role": "user", "content": "go on"},
    ]


def prompt_of(gateway: Harness, tokenizer: Tokenizer, messages: Any, **fields: Any) -> str:
    reply = gateway.chat(messages=messages, **fields)
    assert reply.status_code == 200, reply.text
    return tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"command": "cd /x && git', '"arguments">{"command": "cd /x && git</'),
        ("{'command': 'ls'}", "\"arguments\">{'command': 'ls'}</"),
        ('"{\\"command\\": \\"ls\\"}"', '"command">ls</'),
        ('{"command": "a\nb"}', '"command">a\nb</'),
        ('{"a": NaN}', '"a">NaN</'),
        (
            '{"a\\"b": 1, "<c>": 2}',
            'name="a\\u0022b">1</parameter>\n<parameter name="\\u003cc\\u003e">2<',
        ),
        ('{"a": "\\ud83d"}', '"a">\ufffd</'),
        (None, '"weather">\n</invoke>'),
        ([], '"weather">\n</invoke>'),
        ("", '"weather">\n</invoke>'),
        ({"a": 1}, '"a">1</'),
        ('{"a": ' + "[" * 65 + "]" * 65 + "}", '"a">' + "[" * 65 + "]" * 65 + "</"),
        ({"a": 10**100}, '"a">1' + "0" * 100 + "</"),
    ],
)
def test_arguments_of_an_old_call(
    gateway: Harness, tokenizer: Tokenizer, arguments: Any, shown: str
) -> None:
    assert shown in prompt_of(gateway, tokenizer, history(arguments), tools=[WEATHER])


@pytest.mark.parametrize("name", ["n" * 70, "my tool", "", None, 'a"><b', "mcp__x/y", "\ud83d"])
def test_name_of_an_old_call(gateway: Harness, tokenizer: Tokenizer, name: Any) -> None:
    prompt = prompt_of(gateway, tokenizer, history("{}", name), tools=[WEATHER])
    assert prompt.count("<invoke name=") == 1


def test_results_and_pictures_without_their_context(gateway: Harness, tokenizer: Tokenizer) -> None:
    messages = [
        {"role": "tool", "tool_call_id": "c0", "content": "after compaction"},
        {"role": "user", "content": [PICTURE, {"type": "text", "text": "look"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "cannot"}]},
        {"role": "function", "name": "f", "content": {"n": 1}},
        USER,
    ]
    prompt = prompt_of(gateway, tokenizer, messages)
    for text in ("after compaction", "look", "cannot", '{"n": 1}'):
        assert text in prompt
    assert "base64" not in prompt


def test_a_picture_that_is_asked_about_is_refused(gateway: Harness) -> None:
    messages = [*history("{}"), {"role": "user", "content": [PICTURE]}]
    reply = gateway.chat(messages=messages)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages[4].content[0].type"
    assert gateway.chat(messages=[*messages, USER]).status_code == 200


def test_what_is_not_shown_as_sent_is_counted_and_logged_once(
    gateway: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [USER, *history("{cut")[1:3], *history("{cut", "\n\ud83d")[1:]]
    with caplog.at_level(logging.INFO, logger="gateway.text.prompt_encoder"):
        before = gateway.metric("history_repairs_total")
        gateway.post(
            "/v1/chat/completions",
            {"model": NAME, "messages": messages},
            headers={"x-request-id": "the-request"},
        )
        assert gateway.metric("history_repairs_total") - before == 3
        gateway.chat(messages=history('{"a": 1}'))
        assert gateway.metric("history_repairs_total") - before == 3
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the-request" in line
    assert line.endswith("arguments 2, name 1")


def test_a_system_message_in_the_middle_leaves_what_stands_before_it(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    start = [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "so"}]
    reminder = {"role": "system", "content": "be brief"}
    opening = "]~b]ai\n<think>\n"
    before = prompt_of(gateway, tokenizer, [*start, USER]).removesuffix(f"[e~[\n{opening}")
    after = prompt_of(gateway, tokenizer, [*start, USER, reminder])
    written = "<system-reminder>\nbe brief\n</system-reminder>"
    assert after == f"{before}\n\n{written}[e~[\n{opening}"
    prompt = prompt_of(gateway, tokenizer, [*start, reminder, USER])
    assert prompt.index("so[e~[") < prompt.index("be brief") < prompt.rindex("hello")


PIECE = st.sampled_from(['"', "<", "\ud83d", "\0", "{", "]~b]", "</think>", "text", "\\"])
TEXT = st.lists(PIECE, max_size=4).map("".join)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 99).map(lambda n: 10**n) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    *(("role",), ("content",), ("reasoning_content",), ("refusal",), ("name",)),
    *(("tool_call_id",), ("tool_calls",), ("function_call",)),
    ("tool_calls", 0),
    *(("tool_calls", 0, key) for key in ("id", "type", "function")),
    *(("tool_calls", 0, "function", key) for key in ("name", "arguments")),
]


@pytest.mark.hypothesis
@pytest.mark.parametrize("index", [0, 1, 2])
def test_any_json_in_any_field_of_an_old_turn_is_served(gateway: Harness, index: int) -> None:
    @examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(path=st.sampled_from(FIELDS), value=ANY_JSON)
    def served(path: tuple[Any, ...], value: Any) -> None:
        messages = copy.deepcopy(history('{"place": "hell"}'))
        *parents, last = path
        target = messages[index]
        for key in parents:
            target = target.get(key, {}) if isinstance(target, dict) else target[key]
        if not isinstance(target, dict | list):
            return
        target[last] = value
        reply = gateway.post(
            "/v1/chat/completions",
            json.dumps({"model": NAME, "messages": messages, "max_tokens": 1}).encode(),
        )
        assert reply.status_code == 200, (messages[index], reply.text)

    served()
