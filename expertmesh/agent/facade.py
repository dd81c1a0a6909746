"""How does a Python program use the agent? `ToolAgent(model).execute_with_tools(query)`.

from expertmesh import LLM, ToolAgent

agent = ToolAgent("http://127.0.0.1:8000", work_dir="project")
run = agent.execute_with_tools("Which tests fail, and why?")
print(run.answer, run.ending)
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from expertmesh.agent.finished import finished
from expertmesh.agent.loop.approval import Approve, Ask
from expertmesh.agent.loop.hints import hints_for
from expertmesh.agent.loop.loop import Ending
from expertmesh.agent.loop.turn import Model, OnPiece, ServedChat
from expertmesh.agent.loop.watch import Watcher
from expertmesh.agent.outward import Outward, outward_tools
from expertmesh.agent.prompts import language_of
from expertmesh.agent.record.run_folder import agent_state
from expertmesh.agent.sandbox.choose import choose_sandbox
from expertmesh.agent.sandbox.folders.identity import give_away
from expertmesh.agent.sandbox.policy import Mode
from expertmesh.agent.session import Changes, Session, Settings
from expertmesh.agent.toolbox import OWN_TOOLS
from expertmesh.agent.tools.tool import Effect, Source, Tool
from expertmesh.clients.chat import Piece, Reply
from expertmesh.clients.chat_stream import ChatStream


class ChatsLikeLLM(Protocol):
    """What is used of `expertmesh.LLM`."""

    @property
    def max_model_len(self) -> int: ...

    def chat(self, messages: Any, sampling_params: Any = None, **others: Any) -> Any: ...

    def get_default_sampling_params(self) -> Any: ...


@dataclass(frozen=True)
class AgentRun:
    """What came of a task."""

    answer: str
    ending: Ending
    """DONE, or why it ended otherwise; `reason` has the details."""
    reason: str
    steps: int
    calls: tuple[str, ...]
    """Names of the tools that were called, in their order."""
    plan: tuple[tuple[str, str], ...]
    """(status, step) of each step, if the model wrote down a plan."""
    sources: tuple[Source, ...]
    """Source n of the answer is `sources[n - 1]`."""
    cited: tuple[int, ...]
    changes: Changes
    id: str
    trace: Path

    @property
    def succeeded(self) -> bool:
        return self.ending is Ending.DONE


class ToolAgent:
    """Works on tasks with tools, in a sandbox. Several tasks share nothing but the folder."""

    def __init__(
        self,
        model: str | ChatsLikeLLM,
        *,
        work_dir: str | Path | None = None,
        tools: Sequence[str] = OWN_TOOLS,
        other_tools: Sequence[Tool] = (),
        web: bool = False,
        search: str | None = None,
        allow_hosts: Sequence[str] = (),
        retrieve: str | Path | None = None,
        mcp: str | Path | None = None,
        check: str | None = None,
        approve: str = "all",
        trust_web: bool = False,
        ask: Ask | None = None,
        sandbox: Mode = "workspace",
        api_key: str | None = None,
        model_name: str | None = None,
        watcher: Watcher | None = None,
        state_dir: str | Path | None = None,
    ):
        """`model`: an `LLM`, or the URL of a server with OpenAI's API, whose key and model name
        `api_key` and `model_name` are. `work_dir`: None for an empty folder of this agent's own,
        which vanishes with it. `other_tools`: besides ours. `web`, `search`, `allow_hosts`,
        `retrieve`, `mcp`: as the command's flags; MCP servers must have been agreed to there.
        `approve`: what needs no question of `ask`: "ask" (only reading), "edits" or "all";
        `trust_web`: also after a page from the web was read.
        `state_dir`: where runs are kept, by default as the command's.
        Raises ValueError naming the argument, and SandboxUnavailableError.
        """
        if approve not in list(Approve):
            raise ValueError(f"approve: one of {', '.join(Approve)}, got {approve!r}")
        self._own = tempfile.TemporaryDirectory() if work_dir is None else None
        self._work_dir = Path(self._own.name if self._own else work_dir or ".")
        if self._own:
            give_away(self._work_dir)
        self._state = Path(state_dir) if state_dir is not None else agent_state()
        self._sandbox = choose_sandbox(self._work_dir, sandbox, protected=[self._state])
        self._writable = sandbox != "read-only"
        self._model = model
        self._model_name = model_name
        self._api_key = api_key
        self._tools = tuple(tools)
        self._others = tuple(other_tools)
        self._outward = Outward(
            web=web,
            search=search,
            allow_hosts=tuple(allow_hosts),
            retrieve=Path(retrieve) if retrieve is not None else None,
            mcp=Path(mcp) if mcp is not None else None,
        )
        self._trust_web = trust_web
        self._check = check
        self._approve = Approve(approve)
        self._ask = ask
        self._watcher = watcher

    def execute_with_tools(self, query: str, max_steps: int = 10) -> AgentRun:
        """Answer a question or do a task, with at most so many answers of the model.

        Raises ChatError if the server cannot be asked for its model.
        """
        return finished(self._run(query, max_steps))

    def execute_complex_task(self, task: str, max_steps: int = 30) -> AgentRun:
        """The same for a task of many steps: the model plans first. Needs the tool update_plan."""
        if "update_plan" not in self._tools:
            raise ValueError("execute_complex_task needs the tool update_plan")
        return finished(self._run(hints_for(task).plan_first.format(task=task), max_steps))

    def browse_retrieve_task(self, query: str, max_steps: int = 10) -> AgentRun:
        """Find something out from the web, with sources. Needs a tool that reads the web."""
        reads_web = any(one.effect is Effect.WEB for one in self._others)
        if not (reads_web or self._outward.reads_web):
            raise ValueError("browse_retrieve_task needs the web: give search, or web=True")
        return finished(self._run(hints_for(query).cite.format(task=query), max_steps))

    async def _run(self, task: str, max_steps: int) -> AgentRun:
        facts: dict[str, Any] = {"sandbox": self._sandbox.mechanism}
        async with contextlib.AsyncExitStack() as stack:
            model: Model
            if isinstance(self._model, str):
                chat = ChatStream(self._model, self._api_key)
                stack.push_async_callback(chat.close)
                served = await chat.served_model(self._model_name)
                model = ServedChat(chat, {"model": served.name})
                max_model_len = served.max_model_len
                facts |= {"model": served.name, "server": chat.root}
            else:
                model, max_model_len = OfflineChat(self._model), self._model.max_model_len
            outward = outward_tools(
                self._outward, work_dir=self._work_dir, state=self._state, ask_server=None
            )
            others = await stack.enter_async_context(outward)
            settings = Settings(
                work_dir=self._work_dir,
                check=self._check,
                max_steps=max_steps,
                tools=self._tools,
                approve=self._approve,
                trust_web=self._trust_web,
                writable=self._writable,
                language=language_of(task),
                max_model_len=max_model_len,
                secrets=(self._api_key,) if self._api_key else (),
                facts=facts,
            )
            return await self._in_session(task, model, settings, others)

    async def _in_session(
        self, task: str, model: Model, settings: Settings, others: Sequence[Tool]
    ) -> AgentRun:
        with Session(
            model,
            settings,
            state=self._state,
            sandbox=self._sandbox,
            ask=self._ask,
            watcher=self._watcher,
            others=[*self._others, *others],
        ) as session:
            progress = await session.run(task)
            return _agent_run(session, session.changes(), progress.ending or Ending.FAILED)


class OfflineChat:
    """An `LLM` as the agent's model. Its answers come whole."""

    def __init__(self, llm: ChatsLikeLLM, sampling: Mapping[str, Any] | None = None):
        """`sampling`: instead of the checkpoint's, by the names of SamplingParams."""
        self._llm = llm
        self._sampling = dict(sampling or {})

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], on_piece: OnPiece
    ) -> Reply:
        params = self._llm.get_default_sampling_params()
        params.max_tokens = None  # vLLM's default is 16; this is as far as the context goes
        for name, value in self._sampling.items():
            setattr(params, name, value)
        started_s = time.monotonic()
        (output,) = await asyncio.to_thread(
            self._llm.chat, messages, params, tools=tools or None, use_tqdm=False
        )
        choice = output.outputs[0]
        reply = Reply(
            reasoning=choice.message.get("reasoning_content", ""),
            content=choice.message.get("content") or "",
            tool_calls=choice.message.get("tool_calls", []),
            finish_reason=choice.finish_reason,
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(choice.token_ids),
            cached_tokens=output.num_cached_tokens or 0,
            first_token_s=output.metrics.first_token_latency,
            total_s=time.monotonic() - started_s,
        )
        on_piece(Piece("content", reply.content), reply)
        return reply


def _agent_run(session: Session, changes: Changes, ending: Ending) -> AgentRun:
    progress = session.agent.progress
    return AgentRun(
        answer=progress.answer,
        ending=ending,
        reason=progress.reason,
        steps=progress.steps,
        calls=tuple(progress.calls),
        plan=tuple(session.plan),
        sources=tuple(session.ledger.sources),
        cited=session.citations().known,
        changes=changes,
        id=session.folder.id,
        trace=session.folder.trace,
    )
