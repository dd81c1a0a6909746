"""What is said at the end of a run? The answer, what changed, the check, the speed, the trace."""

from typing import Any

from rich.console import Console

from expertmesh.agent.loop.loop import Ending
from expertmesh.agent.session import Changes, Session
from expertmesh.clients.live_lines import shown

EXIT_CODES = {
    Ending.DONE: 0,
    Ending.FAILED: 1,
    Ending.UNREACHABLE: 3,
    Ending.MAX_STEPS: 4,
    Ending.CHECK_FAILED: 5,
    Ending.REFUSED: 6,
    Ending.INTERRUPTED: 130,
}
_DIFF_LINES = 40


def report(session: Session, changes: Changes, out: Console, notes: Console) -> None:
    """The answer with its sources on `out`, everything else on `notes`."""
    progress = session.agent.progress
    if progress.answer and progress.ending is Ending.DONE:
        out.print(shown(progress.answer, out), markup=False, soft_wrap=True)
    cited = session.citations()
    if progress.ending is Ending.DONE and cited.known:
        out.print("\nSources:")
        for number in cited.known:
            line = session.ledger.line(number)
            out.print(shown(line, out), markup=False, soft_wrap=True)

    def say(text: str, style: str = "dim") -> None:
        notes.print(shown(text, notes), style=style, markup=False, soft_wrap=True)

    for number in cited.unknown:
        say(f"the answer cites [{number}], and there is no such source", "yellow")
    if progress.ending is not Ending.DONE:
        say(f"{progress.ending}{': ' if progress.reason else ''}{progress.reason}", "red")
    for one in changes.files:
        say(one.line(), "")
    if notes.is_terminal and changes.diff:
        lines = changes.diff.splitlines()
        say("\n".join(lines[:_DIFF_LINES]))
        if len(lines) > _DIFF_LINES:
            say(f"... {len(lines) - _DIFF_LINES} more lines in {session.folder.diff}")
    if progress.check is not None:
        result = "passed" if progress.check.passed else "failed"
        say(f"check `{progress.check.command}` {result}")
    say(speed_line(session))
    if progress.ending in (Ending.INTERRUPTED, Ending.UNREACHABLE, Ending.MAX_STEPS):
        say(f"go on with it: expertmesh agent --resume {session.folder.id}")
    undo = f"; undo: expertmesh agent undo {session.folder.id}" if changes.files else ""
    say(f"trace: {session.folder.trace}{undo}")


def speed_line(session: Session) -> str:
    progress = session.agent.progress
    cached = ""
    if progress.cached_tokens:
        share = 100 * progress.cached_tokens / max(1, progress.prompt_tokens)
        cached = f", {share:.0f} % of the prompts from the cache"
    steps = f"{progress.steps} step{'' if progress.steps == 1 else 's'}"
    rate = f", {progress.tokens_per_s:.1f} tokens/s" if progress.tokens_per_s else ""
    return f"{steps}, {progress.completion_tokens} tokens{rate}{cached}"


def as_json(session: Session, changes: Changes) -> dict[str, Any]:
    """The same for a script."""
    progress, cited = session.agent.progress, session.citations()
    check = progress.check
    return {
        "id": session.folder.id,
        "ending": progress.ending.value if progress.ending else None,
        "reason": progress.reason,
        "answer": progress.answer,
        "check": None
        if check is None
        else {"command": check.command, "passed": check.passed, "output": check.text},
        "changes": [
            {"path": one.path, "what": one.what, "added": one.added, "removed": one.removed}
            for one in changes.files
        ],
        "plan": [{"step": step, "status": status} for status, step in session.plan],
        "steps": progress.steps,
        "calls": progress.calls,
        "prompt_tokens": progress.prompt_tokens,
        "cached_tokens": progress.cached_tokens,
        "completion_tokens": progress.completion_tokens,
        "tokens_per_s": round(progress.tokens_per_s, 2),
        "model_s": round(progress.model_s, 4),
        "cited": list(cited.known),
        "cited_unknown": list(cited.unknown),
        "sources": [
            {"number": number, "place": one.place, "excerpt": one.excerpt, "sha256": one.sha256}
            for number, one in enumerate(session.ledger.sources, 1)
        ],
        "trace": str(session.folder.trace),
    }
