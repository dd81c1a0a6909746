"""A question to a server and to an `LLM`: the same answer, without thinking, cancelled cleanly."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from expertmesh.assistants.asking.model import answer_limit, open_model
from expertmesh.clients.chat import Piece, Reply
from expertmesh.clients.chat_stream import ChatError, LostError, RefusedError
from tests.support.expertmesh.fake_openai_server import FakeServer, Script
from tests.support.expertmesh.scripted_text import ToyLlm, in_turn, refuses, says

SCHEMA = {"type": "array"}
ASKED = [{"role": "user", "content": "hello"}]


@pytest.fixture
def serve() -> Iterator[Callable[[Script], FakeServer]]:
    started: list[FakeServer] = []

    def start(script: Script) -> FakeServer:
        started.append(FakeServer(script))
        return started[-1]

    yield start
    for one in started:
        one.close()


async def asked(where: Any, schema: Any = None, **options: Any) -> tuple[Any, str]:
    shown: list[str] = []

    def keep(piece: Piece, reply: Reply) -> None:
        if piece.kind == "content":
            shown.append(piece.text)

    async with open_model(where, **options) as model:
        answer = await model.ask(ASKED, schema=schema, on_piece=keep)
        await asyncio.sleep(0)
        return answer, "".join(shown)


def test_an_answer_has_a_limit_where_the_context_is_known() -> None:
    assert answer_limit(None) == {}
    assert answer_limit(32_768) == {"max_tokens": 8_192}
    assert answer_limit(196_608) == {"max_tokens": 16_384}


async def test_a_server_is_asked_with_the_sampling_and_its_thinking_is_taken_off(
    serve: Callable[[Script], FakeServer],
) -> None:
    server = serve(says("<think>\nhm\n</think>\n\nAn answer of some length.", thinking="so"))
    answer, shown = await asked(server.url + "/v1", sampling={"temperature": 0, "max_tokens": 9})
    assert answer.text == "An answer of some length."
    assert shown.endswith(answer.text)
    assert (answer.was_cut, answer.reply.reasoning) == (False, "so")
    (body,) = server.bodies
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("fake", 0, 9)
    assert body["messages"] == ASKED
    assert not {"response_format", "tools"} & body.keys()


async def test_the_schema_is_forced_where_the_server_takes_it(
    serve: Callable[[Script], FakeServer],
) -> None:
    server = serve(says("[]"))
    answer, _ = await asked(server.url, SCHEMA)
    assert answer.text == "[]"
    form = server.bodies[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"] == SCHEMA


async def test_a_server_that_refuses_the_schema_is_asked_without_from_then_on(
    serve: Callable[[Script], FakeServer],
) -> None:
    server = serve(in_turn(refuses(400), says("[]")))
    async with open_model(server.url) as model:
        assert (await model.ask(ASKED, schema=SCHEMA)).text == "[]"
        assert (await model.ask(ASKED, schema=SCHEMA)).text == "[]"
    assert ["response_format" in body for body in server.bodies] == [True, False, False]


async def test_what_a_server_refuses_for_another_reason_is_told(
    serve: Callable[[Script], FakeServer],
) -> None:
    server = serve(refuses(403))
    with pytest.raises(RefusedError, match="403: refused"):
        await asked(server.url, SCHEMA)
    assert len(server.bodies) == 1


async def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(LostError, match="cannot reach"):
        await asked("http://127.0.0.1:9")
    with pytest.raises(ValueError, match="base_url"):
        await asked("http://[::")


async def test_an_answer_that_ends_at_a_limit_is_cut(
    serve: Callable[[Script], FakeServer],
) -> None:
    answer, _ = await asked(serve(says("half", finish_reason="length")).url)
    assert answer.was_cut
    assert (await asked(ToyLlm("half", content="half", finish_reason="length")))[0].was_cut


async def test_a_cancelled_question_ends_at_once(
    serve: Callable[[Script], FakeServer],
) -> None:
    server = serve(lambda body: [{"choices": [{"delta": {"content": "x"}}]}, 60.0])
    begun = asyncio.Event()
    async with open_model(server.url) as model:
        task = asyncio.create_task(model.ask(ASKED, on_piece=lambda piece, reply: begun.set()))
        await asyncio.wait_for(begun.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_llm_shows_its_text_from_the_end_of_the_thinking_on() -> None:
    llm = ToyLlm("<think>a", "<think>a</think>\n\nYe", "<think>a</think>\n\nYes.", content="Yes.")
    answer, shown = await asked(llm, SCHEMA, sampling={"top_p": 0.5})
    assert (answer.text, shown, answer.reply.reasoning) == ("Yes.", "Yes.", "hm")
    assert (llm.params.temperature, llm.params.top_p, llm.params.max_tokens) == (0.5, 0.5, 25)
    assert llm.params.structured_outputs.json == SCHEMA


async def test_an_llm_that_does_not_think_shows_its_text_at_the_end() -> None:
    assert (await asked(ToyLlm("Ye", "Yes.", content="Yes.")))[1] == "Yes."


async def test_an_llm_refuses_sampling_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="there is no temprature"):
        await asked(ToyLlm(), sampling={"temprature": 1})
    with pytest.raises(ChatError, match="no answer"):
        await asked(ToyLlm())


async def test_a_cancelled_question_stops_an_llm() -> None:
    llm = ToyLlm("a</think>b", "a</think>bc", content="bc")
    llm.go_on.clear()
    begun = asyncio.Event()
    async with open_model(llm) as model:
        task = asyncio.create_task(model.ask(ASKED, on_piece=lambda piece, reply: begun.set()))
        await asyncio.wait_for(begun.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        llm.go_on.set()
        assert await asyncio.to_thread(llm.was_left.wait, 5)
