"""How does a model work on a task? Turn by turn: it calls tools, until it answers and the check
passes, or until something ends the run."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from expertmesh.agent.loop.answers import (
    Kind,
    answer_text,
    assistant_message,
    kind_of,
)
from expertmesh.agent.loop.approval import StoppedByUserError
from expertmesh.agent.loop.calls import Calls, tool_message
from expertmesh.agent.loop.clip import clipped
from expertmesh.agent.loop.hints import Hints, hints_in
from expertmesh.agent.loop.history import History
from expertmesh.agent.loop.recovery import GivenUpError, Recovery
from expertmesh.agent.loop.turn import Model
from expertmesh.agent.loop.verify import MAX_ROUNDS, Check, Verifier, failure_message
from expertmesh.agent.loop.watch import Watcher
from expertmesh.agent.record.trace import Trace
from expertmesh.clients.chat import Reply
from expertmesh.clients.chat_stream import ChatError, LostError, RefusedError


class Ending(StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    UNREACHABLE = "server not reachable"
    MAX_STEPS = "out of steps"
    CHECK_FAILED = "check failed"
    REFUSED = "not allowed"
    INTERRUPTED = "interrupted"


@dataclass
class Progress:
    """What a run has come to; complete when `ending` is set."""

    ending: Ending | None = None
    reason: str = ""
    answer: str = ""
    check: Check | None = None
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    model_s: float = 0.0
    streaming_s: float = 0.0
    """Of it, after the first token of each answer."""
    calls: list[str] = field(default_factory=list)
    """Names of the tools, in the order of the calls."""

    def count(self, reply: Reply) -> None:
        self.prompt_tokens += reply.prompt_tokens
        self.cached_tokens += reply.cached_tokens
        self.completion_tokens += reply.completion_tokens
        self.model_s += reply.total_s
        self.streaming_s += reply.total_s - (reply.first_token_s or reply.total_s)

    @property
    def tokens_per_s(self) -> float:
        tokens = self.completion_tokens - self.steps
        return tokens / self.streaming_s if self.streaming_s > 0 else 0.0

    def end(self, ending: Ending, reason: str = "") -> None:
        self.ending, self.reason = ending, reason


class Agent:
    """One run. `run` may be called once."""

    def __init__(
        self,
        model: Model,
        tools: list[dict[str, Any]],
        *,
        calls: Calls,
        history: History,
        recovery: Recovery,
        trace: Trace,
        verifier: Verifier | None = None,
        watcher: Watcher | None = None,
        hints: Hints | None = None,
        max_steps: int = 30,
        max_checks: int = MAX_ROUNDS,
    ):
        """`tools`: their definitions, as a request has them. `hints`: in English by default."""
        self._model = model
        self._tools = tools
        self._calls = calls
        self._history = history
        self._recovery = recovery
        self._trace = trace
        self._verifier = verifier
        self._watcher = watcher or Watcher()
        self._hints = hints or hints_in("en")
        self._max_steps = max_steps
        self._max_checks = max_checks
        self._checks = 0
        self.progress = Progress()

    async def run(self, messages: list[dict[str, Any]]) -> Progress:
        """Work on the task of these messages, after those that the history holds already.

        Cancelling ends the running tool, and the run as INTERRUPTED.
        """
        for message in messages:
            self._add(message)
        try:
            while self.progress.ending is None:
                if self.progress.steps == self._max_steps:
                    self.progress.end(Ending.MAX_STEPS, f"no answer after {self._max_steps} steps")
                    break
                self.progress.steps += 1
                await self._step(self.progress.steps)
        except GivenUpError as error:
            self.progress.end(Ending.FAILED, str(error))
        except StoppedByUserError as error:
            self.progress.end(Ending.REFUSED, str(error))
        except ChatError as error:
            is_away = isinstance(error, LostError) or getattr(error, "status", 0) == 503
            self.progress.end(Ending.UNREACHABLE if is_away else Ending.FAILED, str(error))
        except asyncio.CancelledError:
            self.progress.end(Ending.INTERRUPTED)
            raise
        finally:
            self._trace.write("end", **self._summary())
        return self.progress

    async def _step(self, step: int) -> None:
        if self._history.is_full():
            self._compact()
        self._recovery.turn_begins()
        self._watcher.turn_begins(step)
        reply = await self._ask()
        kind = kind_of(reply)
        message = assistant_message(reply, kind, step)
        self._history.add(message)
        self._history.counted(reply.prompt_tokens, reply.completion_tokens)
        self.progress.count(reply)
        self._trace.write(
            "answer",
            step=step,
            message=message,
            kind=kind.value,
            finish_reason=reply.finish_reason,
            prompt_tokens=reply.prompt_tokens,
            cached_tokens=reply.cached_tokens,
            completion_tokens=reply.completion_tokens,
            first_token_s=reply.first_token_s,
            seconds=round(reply.total_s, 4),
        )
        self._watcher.turn_ended(step, reply)
        if kind is Kind.CALLS:
            await self._make_calls(step, message["tool_calls"], reply.tool_calls)
        elif kind is Kind.FINAL:
            await self._finish(answer_text(reply.content))
        else:
            self._recovery.invalid(f"it was {kind.value}")
            self._watcher.note(f"the answer was {kind.value}: the model is asked again")
            hint = self._hints.cut if kind is Kind.CUT else self._hints.empty
            self._add({"role": "user", "content": hint})

    async def _ask(self) -> Reply:
        """Leaves out more and more for as long as the server finds the conversation too long."""
        while True:
            try:
                return await self._model.ask(
                    self._history.messages, self._tools, self._watcher.piece
                )
            except RefusedError as error:
                if not error.is_too_long or not self._compact(hard=True):
                    raise

    async def _make_calls(
        self, step: int, kept: list[dict[str, Any]], made: list[dict[str, Any]]
    ) -> None:
        """`kept`: as in the history; `made`: the same with the arguments as they came."""
        for call, raw in zip(kept, made, strict=True):
            self.progress.calls.append(call["function"]["name"])
            as_made = {**call, "function": raw["function"]}
            text, line = await self._calls.make(step, as_made)
            self._history.add(tool_message(call, text), line)

    async def _finish(self, answer: str) -> None:
        self.progress.answer = answer
        if self._verifier is None:
            self.progress.end(Ending.DONE)
            return
        self._checks += 1
        self._watcher.check_begins(self._verifier.command)
        self.progress.check = check = await self._verifier.check()
        self._watcher.checked(check)
        self._trace.write(
            "check", command=check.command, passed=check.passed, text=clipped(check.text)
        )
        if check.passed:
            self.progress.end(Ending.DONE)
        elif self._checks == self._max_checks:
            times = "once" if self._checks == 1 else f"{self._checks} times"
            reason = f"`{check.command}` failed {times}"
            self.progress.end(Ending.CHECK_FAILED, reason)
        else:
            self._recovery.told()
            message = failure_message(check, clipped(check.text), self._hints)
            self._add({"role": "user", "content": message})

    def _compact(self, *, hard: bool = False) -> bool:
        """Whether anything was left out."""
        replaced = self._history.compact(hard=hard)
        if replaced:
            self._trace.write("compact", replaced=[[one.index, one.text] for one in replaced])
            self._watcher.note(f"the context is full: {len(replaced)} older results were left out")
        return bool(replaced)

    def _add(self, message: dict[str, Any]) -> None:
        self._history.add(message)
        self._trace.write(message["role"], message=message)

    def _summary(self) -> dict[str, Any]:
        one = self.progress
        return {
            "ending": one.ending.value if one.ending else Ending.FAILED.value,
            "reason": one.reason,
            "answer": one.answer,
            "steps": one.steps,
            "prompt_tokens": one.prompt_tokens,
            "cached_tokens": one.cached_tokens,
            "completion_tokens": one.completion_tokens,
            "model_s": round(one.model_s, 4),
        }
