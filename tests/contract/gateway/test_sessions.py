"""Which attention service answers the requests that a client says belong together?"""

from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.messages import ask
from tests.support.gateway.model import EOS, NAME

SESSIONS = [f"session-{number}" for number in range(20)]


def ask_with(gateway: Harness, hint: str, session: str) -> int:
    """The status of an answer to a request that names its session in this way."""
    if hint == "header":
        return ask(gateway, headers={"X-Claude-Code-Session-Id": session}).status_code
    if hint == "chat header":  # another hint beside it has no say
        body = {"model": NAME, "messages": [{"role": "user", "content": "hi"}], "user": "me"}
        headers = {"x-session-affinity": session}
        return gateway.post("/v1/chat/completions", body, headers=headers).status_code
    if hint == "metadata":
        return ask(gateway, metadata={"user_id": session}).status_code
    return gateway.chat(**({hint: session} if hint else {})).status_code


def replicas_of(gateway: Harness, fakes: Any, hint: str) -> list[int]:
    """Which of the two services answered each session."""
    found = []
    for session in SESSIONS:
        before = len(fakes[0].requests)
        assert ask_with(gateway, hint, session) == 200
        found.append(len(fakes[0].requests) - before)
    return found


@pytest.fixture
def pair(make_gateway: Any, tokenizer: Tokenizer) -> list[Harness]:
    """Two gateways before the same two attention services; the first one has their scripts."""
    first = make_gateway(fakes=2)
    second = make_gateway(fakes=0, attention=first.config.attention)
    first.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    for one in (first, second):
        one.wait_for(lambda one=one: one.metric("attention_replicas_ready") == 2)
    return [first, second]


@pytest.mark.parametrize("hint", ["header", "chat header", "metadata", "prompt_cache_key", "user"])
def test_a_session_has_one_replica_whichever_gateway_it_asks(
    pair: list[Harness], hint: str
) -> None:
    """All prompts are alike, so that without the hint the cache would draw them to one replica."""
    fakes = pair[0].fakes
    first, second, again = (replicas_of(one, fakes, hint) for one in (*pair, pair[0]))
    assert first == second == again
    assert set(first) == {0, 1}, "the sessions must spread over the replicas"


def test_without_a_session_equal_prompts_go_where_they_are_cached(pair: list[Harness]) -> None:
    assert len(set(replicas_of(pair[0], pair[0].fakes, ""))) == 1
