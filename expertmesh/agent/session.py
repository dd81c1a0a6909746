"""What belongs to one run, from its begin to its end? Folder, trace, checkpoint, tools, loop."""

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from expertmesh.agent.contained import Folder
from expertmesh.agent.loop.approval import Approval, Approve, Ask
from expertmesh.agent.loop.calls import READER, Calls
from expertmesh.agent.loop.evidence import Citations, Ledger
from expertmesh.agent.loop.hints import hints_in
from expertmesh.agent.loop.history import History
from expertmesh.agent.loop.loop import Agent, Progress
from expertmesh.agent.loop.recovery import Recovery
from expertmesh.agent.loop.turn import Model
from expertmesh.agent.loop.verify import MAX_ROUNDS, Verifier
from expertmesh.agent.loop.watch import Watcher
from expertmesh.agent.prompts import system_prompt
from expertmesh.agent.record.checkpoint import Checkpoint
from expertmesh.agent.record.diff import Changed, compare
from expertmesh.agent.record.masks import Masks, secrets_of
from expertmesh.agent.record.past import Earlier
from expertmesh.agent.record.run_folder import new_run, runs_of, write_private
from expertmesh.agent.record.trace import Trace
from expertmesh.agent.sandbox.policy import Sandbox
from expertmesh.agent.toolbox import OWN_TOOLS, Materials, check_names, make_registry
from expertmesh.agent.tools.plan import Plan
from expertmesh.agent.tools.tool import Effect, Tool


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user decides about a run."""

    work_dir: Path
    check: str | None = None
    max_steps: int = 30
    max_checks: int = MAX_ROUNDS
    tools: tuple[str, ...] = OWN_TOOLS
    approve: Approve = Approve.ASK
    trust_web: bool = False
    writable: bool = True
    """Whether anything in the work folder may be changed; as the sandbox is."""
    language: str = "en"
    """Of the task, as `language_of` tells it."""
    max_model_len: int | None = None
    secrets: tuple[str, ...] = ()
    """Never written to the trace, besides what the environment holds."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For the trace: the model, its server, the sandbox."""

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"max_steps: at least 1, got {self.max_steps}")
        if self.max_checks < 1:
            raise ValueError(f"max_checks: at least 1, got {self.max_checks}")
        check_names(self.tools)


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
        state: Path,
        sandbox: Sandbox,
        ask: Ask | None = None,
        watcher: Watcher | None = None,
        others: Sequence[Tool] = (),
    ):
        """`state`: the folder of what the agent keeps. `ask`: None where nobody can be asked.

        Raises ValueError for two tools of one name, and OSError.
        """
        self.settings = settings
        self._watcher = watcher or Watcher()
        folder = Folder(settings.work_dir, protected=[state])
        self.folder = new_run(runs_of(state))
        self.trace = Trace(self.folder, Masks([*settings.secrets, *secrets_of()]))
        self.checkpoint = Checkpoint(folder, self.folder.checkpoint, left_out=state)
        self.ledger = Ledger()
        self.plan: Plan = []
        self._told_not_kept = ""
        self.registry = make_registry(
            Materials(
                folder=folder,
                sandbox=sandbox,
                outputs=self.folder.outputs,
                before_change=self.checkpoint.before_change,
                on_output=self._watcher.output,
                on_plan=self._planned,
                writable=settings.writable,
            ),
            settings.tools,
            others,
        )
        self._history = History(settings.max_model_len)
        self._approval = Approval(settings.approve, ask, trust_web=settings.trust_web)
        hints = hints_in(settings.language)
        recovery = Recovery(hints)
        calls = Calls(
            self.registry,
            approval=self._approval,
            recovery=recovery,
            ledger=self.ledger,
            trace=self.trace,
            saver=self,
            watcher=self._watcher,
            hints=hints,
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
            hints=hints,
            max_steps=settings.max_steps,
            max_checks=settings.max_checks,
        )

    async def run(
        self, task: str, earlier: Earlier | None = None, *, language: str | None = None
    ) -> Progress:
        """Work on the task, after the conversation of an earlier run that it goes on with.

        `language` of what the model is told, "en" or "zh"; by default the task's.
        """
        self.trace.write(
            "start",
            task=task,
            folder=str(self.settings.work_dir.resolve()),
            check=self.settings.check,
            max_steps=self.settings.max_steps,
            approve=self.settings.approve.value,
            tools=self.registry.names,
            **self.settings.facts,
        )
        if self.settings.writable and any(map(self._may_change_all, self.registry)):
            self._tell_not_kept(*await asyncio.to_thread(self.checkpoint.outlook))
        user = {"role": "user", "content": task}
        if earlier is not None:
            self._take_over(earlier)
            return await self.agent.run([user])
        folder = self.settings.work_dir.resolve()
        system = system_prompt(task, folder, self.registry, language)
        return await self.agent.run([{"role": "system", "content": system}, user])

    def _take_over(self, earlier: Earlier) -> None:
        """The new run's folder holds everything, so that it can be continued itself."""
        self._approval.web_was_read = earlier.web_was_read
        shutil.copytree(earlier.outputs, self.folder.outputs, dirs_exist_ok=True)
        for index, message in enumerate(earlier.messages):
            line = earlier.notes.get(index, "")
            self._history.add(message, line)
            self.trace.write("earlier", message=message, line=line)
        sources = [asdict(one) for one in earlier.sources]
        self.trace.write("earlier", sources=sources)
        for source in earlier.sources:
            self.ledger.add(source)

    async def before(self, effect: Effect, tool: str) -> None:
        """Keep the whole folder before the first command. The editor keeps its files itself."""
        writes = effect is Effect.WRITES and tool != READER
        if not (writes or (effect is Effect.RUNS and self.settings.writable)):
            return
        kept = self.checkpoint
        if kept.is_whole or kept.is_too_large:
            return
        started_s = time.monotonic()
        await asyncio.to_thread(kept.before_run)
        self._tell_not_kept(kept.is_too_large, kept.not_kept)
        self.trace.write(
            "checkpoint",
            names=len(kept.before),
            not_kept=kept.not_kept,
            is_whole=kept.is_whole,
            seconds=round(time.monotonic() - started_s, 3),
        )

    def _may_change_all(self, tool: Tool) -> bool:
        return tool.name != READER and tool.effect in (Effect.WRITES, Effect.RUNS)

    def _tell_not_kept(self, is_too_large: bool, not_kept: int) -> None:
        """What undo will not do; before the model is asked, and again if that has changed."""
        text = ""
        if is_too_large:
            text = (
                "the folder has too many files to be kept: undo can put back what file_editor "
                "changes, and nothing that a command changes"
            )
        elif not_kept:
            text = (
                f"{not_kept:,} files are too large to be kept: undo cannot put them back if a "
                "command changes them"
            )
        if text and text != self._told_not_kept:
            self._watcher.note(text)
        self._told_not_kept = text

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

    def __exit__(self, *_: object) -> None:
        self.close()
