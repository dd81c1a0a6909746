"""How does `expertmesh agent` carry out a run? It connects, assembles, runs, and reports."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expertmesh.agent.loop.approval import Approve
from expertmesh.agent.loop.hints import hints_for
from expertmesh.agent.loop.loop import Ending
from expertmesh.agent.loop.turn import Model, ServedChat
from expertmesh.agent.mcp_servers.confirmation import NotConfirmedError
from expertmesh.agent.mcp_servers.server import McpServerError
from expertmesh.agent.outward import Outward, outward_tools
from expertmesh.agent.prompts import language_of
from expertmesh.agent.record.past import (
    Earlier,
    Recorded,
    RecordedModel,
    differences,
    read_earlier,
    read_recorded,
)
from expertmesh.agent.record.run_folder import RunFolder, agent_state, find_run, runs_of
from expertmesh.agent.record.trace import read_trace
from expertmesh.agent.sandbox.choose import choose_sandbox
from expertmesh.agent.sandbox.policy import Mode, Sandbox, SandboxUnavailableError
from expertmesh.agent.session import Changes, Session, Settings
from expertmesh.agent.terminal.ask_terminal import TerminalAsk
from expertmesh.agent.terminal.report import EXIT_CODES, as_json, report
from expertmesh.agent.terminal.view import RunView
from expertmesh.agent.tools.tool import Tool
from expertmesh.clients.chat_stream import ChatError, ChatStream, LostError
from expertmesh.clients.transcript import Thinking
from expertmesh.commands.interrupts import interruptible, term_as_interrupt
from expertmesh.console import (
    EXIT_FAILED,
    EXIT_NOT_RUNNING,
    EXIT_USAGE,
    CommandError,
    command_errors,
    print_json,
    stderr,
    stdout,
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for."""

    task: str | None
    base_url: str
    api_key: str | None
    model: str | None
    asked_with: dict[str, Any]
    """Fields of each chat request besides the messages: temperature, max_tokens."""
    work_dir: Path
    check: str | None
    max_steps: int
    tools: tuple[str, ...]
    approve: Approve
    sandbox: Mode
    i_know: bool
    outward: Outward
    thinking: Thinking
    as_json: bool
    resume: str | None
    replay: str | None


def run_agent(request: Request) -> int:
    """The exit code. Raises CommandError where a run cannot begin."""
    with command_errors(EXIT_USAGE):
        earlier, recorded = _past(request)
    sandbox = _sandbox(request)
    try:
        return asyncio.run(_run(request, sandbox, earlier, recorded))
    except KeyboardInterrupt:  # a second one, while the first was being seen to
        return 130


def _past(request: Request) -> tuple[Earlier | None, Recorded | None]:
    runs = runs_of(agent_state())
    if request.resume and request.replay:
        raise ValueError("--resume, --replay: give one of them")
    if request.resume:
        return read_earlier(find_run(runs, request.resume)), None
    if request.replay:
        path = Path(request.replay)
        run = RunFolder(path.parent) if path.is_file() else find_run(runs, request.replay)
        return None, read_recorded(run)
    if not request.task:
        raise ValueError("there is no task: give it as an argument or from a pipe")
    return None, None


def _sandbox(request: Request) -> Sandbox:
    if request.sandbox == "off" and not request.i_know:
        raise CommandError(
            "--sandbox off: what the model runs could then do all that you can; if that is what "
            "you want, add --i-know",
            EXIT_USAGE,
        )
    try:
        with command_errors(EXIT_USAGE):
            return choose_sandbox(request.work_dir, request.sandbox, protected=[agent_state()])
    except SandboxUnavailableError as error:
        raise CommandError(str(error), EXIT_FAILED) from None


async def _run(
    request: Request, sandbox: Sandbox, earlier: Earlier | None, recorded: Recorded | None
) -> int:
    notes = stderr()
    view = RunView(notes, Thinking.HIDDEN if request.as_json else request.thinking)
    ask = TerminalAsk(notes) if sys.stdin.isatty() and notes.is_terminal else None
    async with contextlib.AsyncExitStack() as stack:
        settings = _settings(request, sandbox)
        model: Model
        if recorded is not None:
            task = request.task or str(recorded.start["task"])
            model = RecordedModel(recorded.answers)
            settings = _as_recorded(settings, recorded)
        else:
            task = request.task or hints_for(earlier.task if earlier else "").go_on
            with command_errors(EXIT_USAGE):
                chat = ChatStream(request.base_url, request.api_key)
            stack.push_async_callback(chat.close)
            model, settings = await _served(request, chat, settings, view)
        settings = replace(settings, language=language_of(task))
        if earlier is not None and Path(earlier.folder) != request.work_dir.resolve():
            view.note(f"the run that is gone on with worked in {earlier.folder}")
        others = await stack.enter_async_context(_outward(request, ask))
        with command_errors():
            session = Session(
                model,
                settings,
                state=agent_state(),
                sandbox=sandbox,
                ask=ask,
                watcher=view,
                others=others,
            )
        with session, contextlib.closing(view):
            with term_as_interrupt(), interruptible():
                await session.run(task, earlier)
            changes = session.changes()
            view.close()
        _tell(request, session, changes)
        if recorded is not None:
            events = read_trace(session.folder.trace)
            for line in differences(recorded, [one for one in events if one["event"] == "tool"]):
                notes.print(line, style="yellow", markup=False)
    ending = session.agent.progress.ending
    return EXIT_CODES[ending] if ending else EXIT_FAILED


@contextlib.asynccontextmanager
async def _outward(request: Request, ask: TerminalAsk | None) -> AsyncIterator[list[Tool]]:
    """The tools that reach beyond the work folder. Raises CommandError."""
    async with contextlib.AsyncExitStack() as stack:
        tools = outward_tools(
            request.outward,
            work_dir=request.work_dir,
            state=agent_state(),
            ask_server=ask.server if ask is not None else None,
        )
        try:
            with command_errors(EXIT_USAGE):
                made = await stack.enter_async_context(tools)
        except NotConfirmedError as error:
            raise CommandError(str(error), EXIT_CODES[Ending.REFUSED]) from None
        except McpServerError as error:
            raise CommandError(str(error), EXIT_FAILED) from None
        yield made


async def _served(
    request: Request, chat: ChatStream, settings: Settings, view: RunView
) -> tuple[Model, Settings]:
    try:
        served = await chat.served_model(request.model)
    except ChatError as error:
        hint = "; does `expertmesh status` show a cluster?" if isinstance(error, LostError) else ""
        code = EXIT_NOT_RUNNING if isinstance(error, LostError) else EXIT_FAILED
        raise CommandError(f"{error}{hint}", code) from None
    facts = {**settings.facts, "model": served.name, "server": chat.root}
    model = ServedChat(chat, {"model": served.name, **request.asked_with}, on_wait=view.waits)
    return model, replace(settings, max_model_len=served.max_model_len, facts=facts)


def _settings(request: Request, sandbox: Sandbox) -> Settings:
    with command_errors(EXIT_USAGE):
        return Settings(
            work_dir=request.work_dir,
            check=request.check,
            max_steps=request.max_steps,
            tools=request.tools,
            approve=request.approve,
            trust_web=request.i_know,
            writable=request.sandbox != "read-only",
            secrets=(request.api_key,) if request.api_key else (),
            facts={"sandbox": sandbox.mechanism},
        )


def _as_recorded(settings: Settings, recorded: Recorded) -> Settings:
    """With the check of the run that is repeated, unless another was given."""
    facts = {**settings.facts, "replays": recorded.start.get("task")}
    return replace(settings, check=settings.check or recorded.start.get("check"), facts=facts)


def _tell(request: Request, session: Session, changes: Changes) -> None:
    if request.as_json:
        print_json(as_json(session, changes))
    else:
        report(session, changes, stdout(), stderr())
