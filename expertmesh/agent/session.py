"""What belongs to one run, from its begin to its end? Folder, trace, checkpoint, tools, loop."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from expertmesh.agent.approval import Approval, Approve, Ask
from expertmesh.agent.calls import READER, Calls
from expertmesh.agent.checkpoint import Checkpoint
from expertmesh.agent.contained import Folder
from expertmesh.agent.diff import Changed, compare
from expertmesh.agent.evidence import Citations, Ledger
from expertmesh.agent.history import History
from expertmesh.agent.loop import Agent, Progress
from expertmesh.agent.masks import Masks, secrets_of
from expertmesh.agent.prompts import system_prompt
from expertmesh.agent.recovery import Recovery
from expertmesh.agent.run_folder import new_run, write_private
from expertmesh.agent.sandbox.policy import Sandbox
from expertmesh.agent.toolbox import OWN_TOOLS, Materials, make_registry
from expertmesh.agent.tools.plan import Plan
from expertmesh.agent.tools.tool import Effect, Tool
from expertmesh.agent.trace import Trace
from expertmesh.agent.turn import Model
from expertmesh.agent.verify import Verifier
from expertmesh.agent.watch import Watcher


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user decides about a run."""

    work_dir: Path
    check: str | None = None
    max_steps: int = 30
    tools: tuple[str, ...] = OWN_TOOLS
    approve: Approve = Approve.ASK
    trust_web: bool = False
    writable: bool = True
    """Whether commands can change the work folder; False in a read-only sandbox."""
    max_model_len: int | None = None
    secrets: tuple[str, ...] = ()
    """Never written to the trace, besides what the environment holds."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For the trace: the model, its server, the sandbox."""

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"max_steps: at least 1, got {self.max_steps}")


@dataclass(frozen=True)
class Changes:
    """What a run did to the work folder."""

    files: list[Changed]
    diff: str
    not_kept: int
    """Files too large for the checkpoint, which `undo` could not put back."""


class Session:
    """One run in its folder; close it, or use it in a `with` statement."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        *,
        runs: Path,
        sandbox: Sandbox,
        ask: Ask | None = None,
        watcher: Watcher | None = None,
        others: Sequence[Tool] = (),
    ):
        """`runs`: the folder of all runs. `ask`: None where nobody can be asked.

        Raises ValueError for a tool that does not exist, and OSError.
        """
        self.settings = settings
        self._watcher = watcher or Watcher()
        folder = Folder(settings.work_dir, protected=[runs])
        self.folder = new_run(runs)
        self.trace = Trace(self.folder, Masks([*settings.secrets, *secrets_of()]))
        self.checkpoint = Checkpoint(folder, self.folder.checkpoint, left_out=runs)
        self.ledger = Ledger()
        self.plan: Plan = []
        self.registry = make_registry(
            Materials(
                folder=folder,
                sandbox=sandbox,
                outputs=self.folder.outputs,
                before_change=self.checkpoint.before_change,
                on_output=self._watcher.output,
                on_plan=self._planned,
            ),
            settings.tools,
            others,
        )
        self._history = History(settings.max_model_len)
        recovery = Recovery()
        calls = Calls(
            self.registry,
            approval=Approval(settings.approve, ask, trust_web=settings.trust_web),
            recovery=recovery,
            ledger=self.ledger,
            trace=self.trace,
            saver=self,
            watcher=self._watcher,
        )
        self.agent = Agent(
            model,
            self.registry.definitions(),
            calls=calls,
            history=self._history,
            recovery=recovery,
            trace=self.trace,
            verifier=Verifier(settings.check, sandbox) if settings.check else None,
            watcher=self._watcher,
            max_steps=settings.max_steps,
        )

    async def run(self, task: str, earlier: Sequence[dict[str, Any]] = ()) -> Progress:
        """Work on the task, after the messages of an earlier run that it continues, if any."""
        self.trace.write(
            "start",
            task=task,
            folder=str(self.settings.work_dir.resolve()),
            check=self.settings.check,
            max_steps=self.settings.max_steps,
            approve=self.settings.approve.value,
            tools=self.registry.definitions(),
            **self.settings.facts,
        )
        system = {"role": "system", "content": system_prompt(task, self.settings.work_dir)}
        messages = [*(earlier or [system]), {"role": "user", "content": task}]
        return await self.agent.run(messages)

    async def before(self, effect: Effect, tool: str) -> None:
        """Keep the whole folder before the first command. The editor keeps its files itself."""
        writes = effect is Effect.WRITES and tool != READER
        if not (writes or (effect is Effect.RUNS and self.settings.writable)):
            return
        if not self.checkpoint.is_whole:
            started_s = time.monotonic()
            await asyncio.to_thread(self.checkpoint.before_run)
            if self.checkpoint.not_kept:
                self._watcher.note(
                    f"{self.checkpoint.not_kept:,} files are too large or too many to be kept: "
                    "undo cannot put them back if a command changes them"
                )
            self.trace.write(
                "checkpoint",
                files=len(self.checkpoint.before),
                not_kept=self.checkpoint.not_kept,
                seconds=round(time.monotonic() - started_s, 3),
            )

    def changes(self) -> Changes:
        """What differs in the folder from before the run; kept for `undo` and `show`."""
        found = self.checkpoint.save_changes()
        copies = self.folder.checkpoint / "files"
        files, diff = compare(self.settings.work_dir.resolve(), copies, found)
        write_private(self.folder.diff, diff.encode("utf-8", "surrogatepass"))
        self.trace.write("changes", files=[one.line() for one in files])
        return Changes(files, diff, self.checkpoint.not_kept)

    def citations(self) -> Citations:
        return self.ledger.citations(self.agent.progress.answer)

    def _planned(self, plan: Plan) -> None:
        self.plan = plan
        self.trace.write("plan", steps=plan)

    def close(self) -> None:
        self.trace.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
