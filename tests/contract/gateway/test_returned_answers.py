"""A returned answer becomes the ids that were emitted, for its own tenant only."""

from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import WEATHER, events_of, invoke, tool_answer
from tests.support.gateway.fake_attention import FakeAttention, say
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import (
    END_OF_THINK,
    END_OF_TOOL_CALL,
    EOS,
    NAME,
    TOOL_CALL,
    write_tiny_model,
)

USER: Any = {"role": "user", "content": "hello"}
KEYS = ("the-first-key", "the-second-key")


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a gateway whose model has room for two turns at one token a byte."""
    folder = write_tiny_model(tmp_path_factory.mktemp("roomy"), context=2048)
    return {"model_folder": folder, "status": ready_status(2048)}


@pytest.fixture
def gateway(make_gateway: Any, roomy: dict[str, Any]) -> Harness:
    gateway: Harness = make_gateway(**roomy)
    return gateway


@pytest.fixture
def guarded(make_gateway: Any, roomy: dict[str, Any]) -> Harness:
    gateway: Harness = make_gateway(api_key=KEYS, **roomy)
    return gateway


def letters(text: str) -> list[int]:
    """Ids that the tokenizer would not give to this text: one for each byte."""
    return list(text.encode())


EMITTED = [
    *letters("hello, thinking\n"),
    END_OF_THINK,
    *letters("\n\nhell\n"),
    TOOL_CALL,
    *letters("\n" + invoke("weather", place="hell")),
    END_OF_TOOL_CALL,
]


def first_turn(gateway: Harness, **options: Any) -> tuple[Any, list[int]]:
    """The answer as openai's client has it, and its prompt with what was emitted."""
    gateway.script(say(EMITTED, step=3, eos=EOS))
    reply = gateway.client(**options).chat.completions.create(
        model=NAME, messages=[USER], tools=[WEATHER]
    )
    return reply.choices[0].message, list(gateway.fake.requests[-1].prompt_token_ids)


def second_turn(gateway: Harness, message: Any, key: str = "unused", **body: Any) -> list[int]:
    """The prompt of the request that returns the answer with the tool's result."""
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "rain"}
    messages = [USER, message, result]
    reply = gateway.post(
        "/v1/chat/completions",
        {"model": NAME, "messages": messages, "tools": [WEATHER], "max_tokens": 1, **body},
        headers={"authorization": f"Bearer {key}"},
    )
    assert reply.status_code == 200
    return list(gateway.fake.requests[-1].prompt_token_ids)


def forms(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The message with its thinking in each of the four forms."""
    thought = message["reasoning_content"]
    bare = {name: value for name, value in message.items() if name != "reasoning_content"}
    return [
        message,
        {**bare, "reasoning": thought},
        {**bare, "reasoning_details": [{"type": "reasoning.text", "text": thought}]},
        {**bare, "content": f"<think>\n{thought}\n</think>\n\n{message['content']}"},
    ]


def test_a_tool_loop_extends_the_ids_of_the_turn_before(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    message, prompt = first_turn(gateway)
    assert message.tool_calls[0].function.arguments == '{"place": "hell"}'
    for form in forms(message.model_dump(exclude_none=True)):
        again = second_turn(gateway, form)
        assert again[: len(prompt) + len(EMITTED) + 1] == [*prompt, *EMITTED, EOS]
        assert tokenizer.encode_text("hello")[0] not in again[len(prompt) :]


def test_a_streamed_answer_is_kept_too(gateway: Harness) -> None:
    gateway.script(say(EMITTED, step=2, eos=EOS))
    message: dict[str, Any] = {"role": "assistant", "content": "", "reasoning_content": ""}
    call = {"id": "", "type": "function", "function": {"name": "weather", "arguments": ""}}
    stream = gateway.client().chat.completions.create(
        model=NAME, messages=[USER], tools=[WEATHER], stream=True
    )
    for chunk in stream:
        delta = chunk.choices[0].delta
        message["content"] += delta.content or ""
        message["reasoning_content"] += getattr(delta, "reasoning_content", "")
        for part in delta.tool_calls or []:
            call["id"] = part.id or call["id"]
            call["function"]["arguments"] += part.function.arguments
    message["tool_calls"] = [call]
    prompt = list(gateway.fake.requests[-1].prompt_token_ids)
    again = second_turn(gateway, message)
    assert again[: len(prompt) + len(EMITTED)] == prompt + EMITTED


def salts(fake: FakeAttention) -> list[str]:
    return [request.cache_salt for request in fake.requests]


def test_tenants_share_neither_ids_nor_cached_prompts(
    guarded: Harness, tokenizer: Tokenizer
) -> None:
    message, prompt = first_turn(guarded, api_key=KEYS[0])
    returned = message.model_dump(exclude_none=True)
    emitted = [*prompt, *EMITTED]
    own = second_turn(guarded, returned, KEYS[0])
    other = second_turn(guarded, returned, KEYS[1])
    salted = second_turn(guarded, returned, KEYS[0], cache_salt="a")
    assert own[: len(emitted)] == emitted
    assert other[: len(emitted)] != emitted
    assert salted == other
    assert tokenizer.decode(own) == tokenizer.decode(other)
    first, *rest = salts(guarded.fake)
    assert rest[0] == first
    assert len({first, *rest}) == 3
    assert not [salt for salt in salts(guarded.fake) for key in KEYS if key in salt]


def test_tokenize_tells_the_ids_that_the_chat_would_use(gateway: Harness) -> None:
    message, _ = first_turn(gateway)
    returned = message.model_dump(exclude_none=True)
    used = second_turn(gateway, returned)
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    body = {"messages": [USER, returned, result], "tools": [WEATHER]}
    assert gateway.post("/tokenize", body).json()["tokens"] == used


RULES = [
    ({"restore_thinking": "always"}, {}, {}, True),
    ({"api_key": KEYS}, {}, {"Authorization": f"Bearer {KEYS[0]}"}, True),
    ({}, {"user": "u"}, {}, True),
    ({}, {"prompt_cache_key": "p"}, {}, True),
    ({}, {}, {}, False),
    ({"restore_thinking": "off"}, {"user": "u"}, {}, False),
    (
        {"restore_thinking": "off", "api_key": KEYS},
        {},
        {"Authorization": f"Bearer {KEYS[0]}"},
        False,
    ),
]
"""Flags, fields and headers of the client, and whether it gets its thinking back."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("flags", "fields", "headers", "is_restored"), RULES)
def test_a_client_that_drops_the_thinking_of_its_calls_gets_it_back(
    make_gateway: Any,
    roomy: dict[str, Any],
    tokenizer: Tokenizer,
    flags: dict[str, Any],
    fields: dict[str, Any],
    headers: dict[str, str],
    is_restored: bool,
    stream: bool,
) -> None:
    gateway: Harness = make_gateway(**flags, **roomy)
    gateway.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    asked = [{"role": "user", "content": "hello"}]

    def ask(messages: list[Any], **more: Any) -> Any:
        body = {"model": NAME, "messages": messages, "tools": [WEATHER], **fields, **more}
        answer = gateway.post("/v1/chat/completions", body, headers=headers)
        assert answer.status_code == 200
        return answer

    answer = ask(asked, stream=stream)
    if stream:
        deltas = [event["choices"][0]["delta"] for event in events_of(answer.text)]
        call = next(d["tool_calls"][0] for d in deltas if "tool_calls" in d)
    else:
        call = answer.json()["choices"][0]["message"]["tool_calls"][0]
    assert len(call["id"]) == len("call_") + 32
    function = {"name": "weather", "arguments": '{"place": "Rome"}'}
    turn = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call["id"], "type": "function", "function": function}],
    }
    result = {"role": "tool", "tool_call_id": call["id"], "content": "rain"}

    def prompt_of(before: list[Any] = asked, **changed: Any) -> str:
        ask([*before, {**turn, **changed}, result])
        return tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)

    with_thinking = prompt_of(reasoning_content="call")
    before = gateway.metric_of(headers, "thinking_restored_total")
    assert (prompt_of() == with_thinking) == is_restored
    assert gateway.metric_of(headers, "thinking_restored_total") == before + is_restored
    thought = "<think>\ncall\n</think>"
    assert thought in with_thinking
    call_of_another = {**turn["tool_calls"][0], "id": "call_of_another_server"}
    for edited in (
        prompt_of(tool_calls=[call_of_another]),
        prompt_of(content="well"),
        prompt_of([{"role": "user", "content": "help"}]),
    ):
        assert thought not in edited


def test_one_sessions_thinking_is_not_anothers(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    asked = [{"role": "user", "content": "hello"}]
    answer = gateway.chat(messages=asked, tools=[WEATHER], user="first")
    message = answer.json()["choices"][0]["message"]
    turn = {"role": "assistant", "content": None, "tool_calls": message["tool_calls"]}
    result = {"role": "tool", "tool_call_id": turn["tool_calls"][0]["id"], "content": "rain"}
    for user, is_restored in (("second", False), ("first", True)):
        gateway.chat(messages=[*asked, turn, result], tools=[WEATHER], user=user)
        prompt = tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)
        assert ("<think>\ncall\n</think>" in prompt) == is_restored


@pytest.mark.parametrize("user", [None, "first"])
def test_an_answer_is_kept_only_where_its_thinking_may_come_back(
    gateway: Harness, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, user: str | None
) -> None:
    core, choices = gateway.service.gateway, []
    start = core.start

    def seen(started: Any, on_tokens: Any) -> Any:
        choices.extend(started)
        return start(started, on_tokens)

    monkeypatch.setattr(core, "start", seen)
    gateway.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    gateway.chat(messages=[{"role": "user", "content": "hello"}], tools=[WEATHER], user=user)
    assert [bool(one.thinking and one.calls) for one in choices] == [user is not None]
