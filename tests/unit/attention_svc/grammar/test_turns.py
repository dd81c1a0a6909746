"""Whose grammar is compiled next, how often, and what is remembered? Judged by order."""

import asyncio
import hashlib
import signal
import threading
from collections.abc import AsyncIterator

import pytest

from attention_svc.grammar import cache as grammar_cache
from attention_svc.grammar import checker as grammar_checker
from attention_svc.grammar.checker import TOO_COSTLY, GrammarChecker
from attention_svc.grammar.compiler import GrammarCompiler
from attention_svc.grammar.limits import COMPILE_SLOTS
from protos import attention_pb2
from rpc.errors import Mismatch, Overloaded
from tests.support.attention_svc.grammar_harness import TABLE, VOCABULARY, allowed, start
from tests.support.attention_svc.grammars import json_grammar
from tests.support.places import DEMO_MODEL

CHOICE = 'start: "yes" | "no"\n'


class Gate:
    """Checkers that answer when told; `asked` lists what they were asked, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._answers: dict[str, asyncio.Future[str]] = {}

    async def check(self, text: str) -> str:
        self.asked.append(text)
        self._answers[text] = asyncio.get_running_loop().create_future()
        return await self._answers[text]

    def answer(self, text: str, refusal: str = "") -> None:
        self._answers.pop(text).set_result(refusal)

    async def close(self) -> None: ...


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def compiler(gate: Gate) -> AsyncIterator[GrammarCompiler]:
    made = GrammarCompiler(DEMO_MODEL, VOCABULARY)
    made._checkers = [gate] * COMPILE_SLOTS
    yield made
    await made.close()


def costly(number: int) -> str:
    return json_grammar({"const": number})


async def asked(gate: Gate, count: int) -> None:
    async with asyncio.timeout(20):
        while len(gate.asked) < count:
            await asyncio.sleep(0.001)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_another_client_never_waits_for_the_busiest_ones_grammars(
    compiler: GrammarCompiler, gate: Gate
) -> None:
    busy = [asyncio.create_task(start(compiler, costly(i), client_id="busy")) for i in range(40)]
    await asked(gate, 1)
    await settle()
    assert gate.asked == [costly(0)], "one client holds all but one slot"
    other = asyncio.create_task(start(compiler, CHOICE, client_id="other"))
    await asked(gate, 2)
    assert gate.asked[1] == CHOICE
    gate.answer(CHOICE)
    assert allowed(await other)
    assert not any(task.done() for task in busy)
    for number in range(40):
        await asked(gate, number + 2)
        gate.answer(costly(number))
    await asyncio.gather(*busy)


async def test_with_every_slot_taken_a_client_waits_for_one_compilation(
    compiler: GrammarCompiler, gate: Gate
) -> None:
    tasks = [
        asyncio.create_task(start(compiler, costly(i), client_id="ab"[i % 2])) for i in range(20)
    ]
    await asked(gate, COMPILE_SLOTS)
    tasks.append(asyncio.create_task(start(compiler, CHOICE, client_id="c")))
    await settle()
    gate.answer(gate.asked[0])
    await asked(gate, COMPILE_SLOTS + 1)
    assert gate.asked[COMPILE_SLOTS] == CHOICE
    while not all(task.done() for task in tasks):
        for text in list(gate._answers):
            gate.answer(text)
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)


async def test_a_refused_grammar_is_checked_once_whoever_sends_it_again(
    compiler: GrammarCompiler, gate: Gate
) -> None:
    tasks = [asyncio.create_task(start(compiler, costly(1), client_id="a")) for _ in range(9)]
    await asked(gate, 1)
    gate.answer(costly(1), TOO_COSTLY)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(ValueError, match="too much time"):
        await start(compiler, costly(1), client_id="b")
    assert {str(error) for error in errors} == {f"grammar: {TOO_COSTLY}"}
    assert gate.asked == [costly(1)]


async def test_the_memory_of_refusals_is_bounded(
    compiler: GrammarCompiler, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_cache, "REMEMBERED_REFUSALS", 3)
    for number in [*range(5), 4, 0]:
        task = asyncio.create_task(start(compiler, costly(number)))
        async with asyncio.timeout(20):
            while not task.done():
                if costly(number) in gate._answers:
                    gate.answer(costly(number), "no")
                await asyncio.sleep(0.001)
        assert isinstance(task.exception(), ValueError)
    assert gate.asked == [costly(number) for number in [*range(5), 0]]
    assert len(compiler.cache._refusals) == 3


async def test_a_request_that_is_cancelled_in_its_turn_leaves_the_slot_usable(
    compiler: GrammarCompiler, gate: Gate
) -> None:
    gone = asyncio.create_task(start(compiler, costly(1), client_id="a"))
    await asked(gate, 1)
    gone.cancel()
    next_one = asyncio.create_task(start(compiler, costly(2), client_id="a"))
    await settle()
    assert gate.asked == [costly(1)], "its slot is taken until its check has ended"
    gate.answer(costly(1))
    await asked(gate, 2)
    gate.answer(costly(2))
    await next_one
    assert allowed(await start(compiler, costly(1)))  # and what was compiled is kept
    assert len(gate.asked) == 2


async def test_a_known_grammar_is_used_by_its_id(compiler: GrammarCompiler, gate: Gate) -> None:
    by_id = attention_pb2.GenerateRequest(grammar_id=hashlib.sha256(CHOICE.encode()).digest())
    with pytest.raises(Mismatch, match=r"^grammar_id is not known"):
        await compiler.start(by_id, emitted_ids=[], ignore_eos=False)
    first = asyncio.create_task(start(compiler, CHOICE))
    await asked(gate, 1)
    gate.answer(CHOICE)
    state = await compiler.start(by_id, emitted_ids=[], ignore_eos=False) if await first else None
    assert state is not None
    assert allowed(state) == allowed(await first)


class Scripted:
    """A process that prints the given lines and then exits with a status."""

    def __init__(self, lines: list[bytes], status: int):
        self.stdin, self.stdout = self, self
        self.returncode: int | None = None
        self._lines, self._status = lines, status

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    async def readline(self) -> bytes:
        if self._lines:
            return self._lines.pop(0)
        self.returncode = self._status
        return b""

    async def wait(self) -> int:
        self.returncode = self._status
        return self._status

    def kill(self) -> None:
        self._status = self.returncode = -signal.SIGKILL


@pytest.mark.parametrize("status", [-signal.SIGXCPU, -signal.SIGABRT, -signal.SIGSEGV, 1])
async def test_a_process_that_ends_itself_means_a_costly_grammar_and_a_new_process(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    made = [Scripted([b'"ready"\n'], status), Scripted([b'"ready"\n', b'["", 0.1]\n'], 0)]

    async def spawn(*command: str, **options: int) -> Scripted:
        return made.pop(0)

    monkeypatch.setattr(grammar_checker.asyncio, "create_subprocess_exec", spawn)
    checker = GrammarChecker(300)
    assert await checker.check("x") == TOO_COSTLY
    assert made == [], "who ended it waited for the next one"
    assert await checker.check("y") == ""


async def test_a_process_that_others_killed_says_nothing_about_the_grammar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def spawn(*command: str, **options: int) -> Scripted:
        return Scripted([b'"ready"\n'], -signal.SIGKILL)

    monkeypatch.setattr(grammar_checker.asyncio, "create_subprocess_exec", spawn)
    with pytest.raises(Overloaded, match="try again"):
        await GrammarChecker(300).check("x")


async def test_a_process_that_never_starts_is_no_fault_of_the_grammar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def spawn(*command: str, **options: int) -> Scripted:
        return Scripted([], 1)

    monkeypatch.setattr(grammar_checker.asyncio, "create_subprocess_exec", spawn)
    checker = GrammarChecker(300)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="did not start"):
            await checker.check("x")


async def test_a_process_that_hangs_as_it_starts_is_ended_and_holds_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Scripted] = []

    class Hanging(Scripted):
        async def readline(self) -> bytes:
            await asyncio.Event().wait()
            return b""

    async def spawn(*command: str, **options: int) -> Scripted:
        made.append(Hanging([], 0))
        return made[-1]

    monkeypatch.setattr(grammar_checker.asyncio, "create_subprocess_exec", spawn)
    monkeypatch.setattr(grammar_checker, "CHECK_TIMEOUT_S", 0.05)
    with pytest.raises(Overloaded):
        await GrammarChecker(300).check("x")
    assert [one.returncode for one in made] == [-signal.SIGKILL]


async def test_a_costly_grammar_is_refused_even_if_no_new_process_can_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [Scripted([b'"ready"\n'], -signal.SIGXCPU), Scripted([], 1)]

    async def spawn(*command: str, **options: int) -> Scripted:
        return made.pop(0)

    monkeypatch.setattr(grammar_checker.asyncio, "create_subprocess_exec", spawn)
    assert await GrammarChecker(300).check("x") == TOO_COSTLY


async def test_what_took_long_there_is_not_done_again_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spawn(*command: str, **options: int) -> Scripted:
        return Scripted([b'"ready"\n', b'["", 1.5]\n'], 0)

    monkeypatch.setattr(grammar_checker.asyncio, "create_subprocess_exec", spawn)
    assert await GrammarChecker(300).check("x") == TOO_COSTLY


async def test_a_replay_of_one_client_holds_up_no_other_and_not_the_loop():
    """A moved sequence's tokens are replayed on a thread, however few they are."""
    compiler = GrammarCompiler(DEMO_MODEL, VOCABULARY)
    try:
        await start(compiler, CHOICE)
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            assert leave.wait(20)

        compiler._replays.submit("a", hold)
        assert await asyncio.to_thread(entered.wait, 20)
        emitted = [next(i for i, data in enumerate(TABLE.bytes_of_id) if data == b"y")]
        own = asyncio.create_task(start(compiler, CHOICE, emitted, client_id="a"))
        other = await start(compiler, CHOICE, emitted, client_id="b")
        assert {TABLE.bytes_of_id[i][:1] for i in allowed(other)} == {b"e"}
        assert not own.done()
        leave.set()
        assert allowed(await own) == allowed(other)
    finally:
        await compiler.close()
