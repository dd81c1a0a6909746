"""How does an assistant have the agent work in a folder? With a check, and undone where it fails.

The agent's loop, tools, sandbox, trace and checkpoint do the work (expertmesh/agent/session.py);
`expertmesh agent show` and `undo` know these runs.
"""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expertmesh.agent.loop.approval import Approve, Ask
from expertmesh.agent.loop.loop import Ending
from expertmesh.agent.loop.verify import MAX_ROUNDS
from expertmesh.agent.loop.watch import Watcher
from expertmesh.agent.record.trace import append_event
from expertmesh.agent.record.undo import Undone, undo
from expertmesh.agent.sandbox.policy import Sandbox
from expertmesh.agent.session import Changes, Session, Settings
from expertmesh.agent.terminal.report import as_json
from expertmesh.agent.toolbox import OWN_TOOLS
from expertmesh.assistants.asking.model import TextModel


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be done where, and what may be done for it."""

    task: str
    language: str
    work_dir: Path
    sandbox: Sandbox
    state: Path
    """The folder of what the agent keeps."""
    check: str | None = None
    max_steps: int = 30
    max_checks: int = MAX_ROUNDS
    approve: Approve = Approve.ASK
    tools: Sequence[str] = OWN_TOOLS
    secrets: tuple[str, ...] = ()
    undo_unless_done: bool = False


@dataclass
class Worked:
    """What came of it."""

    session: Session
    """Closed."""
    changes: Changes
    undone: Undone | None = None
    """What was put back, if it was."""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ending(self) -> Ending:
        return self.session.agent.progress.ending or Ending.FAILED

    @property
    def diff(self) -> str:
        """What has changed in the folder, and stays."""
        return "" if self.undone is not None else self.changes.diff

    def as_json(self) -> dict[str, Any]:
        put_back = None
        if self.undone is not None:
            one = self.undone
            put_back = {"restored": one.restored, "conflicts": one.conflicts, "lost": one.lost}
        told = as_json(self.session, self.changes)
        return {**told, **self.facts, "diff": self.diff, "undone": put_back}


async def work_in_folder(
    model: TextModel,
    order: Order,
    *,
    ask: Ask | None = None,
    watcher: Watcher | None = None,
    guard: AbstractContextManager[None] | None = None,
) -> Worked:
    """`guard` is around the work alone: one that swallows a cancellation has it reported.

    Raises ValueError and OSError if the run cannot begin.
    """
    settings = Settings(
        work_dir=order.work_dir,
        check=order.check,
        max_steps=order.max_steps,
        max_checks=order.max_checks,
        tools=tuple(order.tools),
        approve=order.approve,
        max_model_len=model.max_model_len,
        secrets=order.secrets,
        facts={"sandbox": order.sandbox.mechanism, "model": model.name},
    )
    session = Session(
        model.with_tools(),
        settings,
        state=order.state,
        sandbox=order.sandbox,
        ask=ask,
        watcher=watcher,
    )
    with session:
        with guard or contextlib.nullcontext():
            await session.run(order.task, language=order.language)
        worked = Worked(session, session.changes())
    is_done = worked.ending is Ending.DONE
    if order.undo_unless_done and not is_done and worked.changes.files:
        worked.undone = undo(session.folder)
        one = worked.undone
        if not one.conflicts:
            append_event(session.folder.trace, "undone", restored=one.restored, lost=one.lost)
    return worked
