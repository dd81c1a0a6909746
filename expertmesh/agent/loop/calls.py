"""How is one call of the model made? Checked, allowed, made, clipped and written down."""

import asyncio
import time
from typing import Any, Protocol

from expertmesh.agent.loop.approval import Approval, effect_of
from expertmesh.agent.loop.clip import MAX_BYTES, clipped
from expertmesh.agent.loop.evidence import Ledger
from expertmesh.agent.loop.hints import Hints, hints_in
from expertmesh.agent.loop.recovery import GivenUpError, Recovery
from expertmesh.agent.loop.watch import Watcher
from expertmesh.agent.record.trace import Trace
from expertmesh.agent.tools.registry import BadCallError, CheckedCall, Registry
from expertmesh.agent.tools.tool import Effect, Result, Status
from expertmesh.agent.web.marking import is_marked

TOOL_TIMEOUT_S = 900.0
"""Above every tool's own limit: for one that hangs."""
READER = "file_editor"
"""The tool that can read what was left out."""


class Saver(Protocol):
    """Keeps the files of the work folder as they were."""

    async def before(self, effect: Effect, tool: str) -> None:
        """Called before a call that may change files."""


class Calls:
    """Makes the calls of one run."""

    def __init__(
        self,
        registry: Registry,
        *,
        approval: Approval,
        recovery: Recovery,
        ledger: Ledger,
        trace: Trace,
        saver: Saver | None = None,
        watcher: Watcher | None = None,
        hints: Hints | None = None,
        timeout_s: float = TOOL_TIMEOUT_S,
    ):
        """`hints`: in English by default."""
        self._registry = registry
        self._approval = approval
        self._recovery = recovery
        self._ledger = ledger
        self._trace = trace
        self._saver = saver
        self._watcher = watcher or Watcher()
        self._hints = hints or hints_in("en")
        self._timeout_s = timeout_s
        self.seconds = 0.0

    async def make(self, step: int, call: dict[str, Any]) -> tuple[str, str]:
        """What the model reads of the call, and the line that may later stand for it.

        Raises GivenUpError and StoppedByUserError, which end the run.
        """
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        started_s = time.monotonic()
        note = ""
        try:
            checked = self._registry.check(name, arguments)
        except BadCallError as error:
            result = Result(Status.FAILED, self._hints.not_called.format(reason=error))
            self._watcher.call_begins(name, {"malformed": arguments[:MAX_BYTES]})
            self._recovery.invalid(str(error))
        else:
            effect = effect_of(checked.tool, checked.arguments)
            self._watcher.call_begins(name, checked.arguments)
            note = self._recovery.valid(name, checked.arguments)
            result = await self._allowed_result(checked, effect)
            self._recovery.done(name, checked.arguments, effect, result.status)
        seconds = time.monotonic() - started_s
        self.seconds += seconds
        self._watcher.call_ended(name, result, seconds)
        return self._written(step, call, result, note, seconds)

    async def _allowed_result(self, checked: CheckedCall, effect: Effect) -> Result:
        if not await self._approval.allows(checked.tool, checked.arguments):
            self._recovery.refused()
            return Result(Status.REFUSED, self._hints.refused)
        if self._saver is not None:
            await self._save(effect, checked.tool.name)
        result = await self._result(checked)
        of_web = effect is Effect.WEB and result.status is not Status.REFUSED
        if of_web or is_marked(result.text):
            self._approval.web_was_read = True
        return result

    async def _save(self, effect: Effect, name: str) -> None:
        assert self._saver is not None
        try:
            await self._saver.before(effect, name)
        except OSError as error:
            raise GivenUpError(f"the files could not be kept for undo: {error}") from None

    async def _result(self, checked: CheckedCall) -> Result:
        name = checked.tool.name
        try:
            async with asyncio.timeout(self._timeout_s):
                return await checked.tool.call(checked.arguments)
        except TimeoutError:
            return Result(Status.TIMED_OUT, f"{name} took more than {self._timeout_s:.0f} s")
        except Exception as error:  # a fault of the tool must not end the run
            self._watcher.note(f"{name} has a fault: {type(error).__name__}: {error}")
            return Result(
                Status.FAILED, f"{name} failed by itself: {type(error).__name__}: {error}"
            )

    def _written(
        self,
        step: int,
        call: dict[str, Any],
        result: Result,
        note: str,
        seconds: float,
    ) -> tuple[str, str]:
        numbers = [self._ledger.add(source) for source in result.sources]
        kept = self._trace.keep_output(result.text)
        where = kept if READER in self._registry else ""
        sources = zip(numbers, result.cited, strict=False)
        added = [*([note] if note else []), *(f"[{n}] {one.place}" for n, one in sources)]
        text = "\n".join([clipped(result.text, full_text=where), *added])
        hidden = self._trace.masks.hide(result.text)
        line = (self._hints.left_out_kept if where else self._hints.left_out).format(
            tool=call["function"]["name"],
            step=step,
            status=result.status.value,
            characters=f"{len(result.text):,}",
            kept=kept,
        )
        self._trace.write(
            "tool",
            step=step,
            message=tool_message(call, "\n".join([clipped(hidden, full_text=where), *added])),
            line=line,
            name=call["function"]["name"],
            status=result.status.value,
            seconds=round(seconds, 4),
            output=kept,
            sources=[
                {"number": n, "place": one.place, "sha256": one.sha256, "excerpt": one.excerpt}
                for n, one in zip(numbers, result.sources, strict=True)
            ],
        )
        return text, line


def tool_message(call: dict[str, Any], text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call["id"], "content": text}
