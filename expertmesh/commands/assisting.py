"""How does a command of an assistant run? It connects, works, and turns failures into one line."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expertmesh.agent.sandbox.policy import SandboxUnavailableError
from expertmesh.assistants.model import TextModel, open_model
from expertmesh.assistants.structured import UselessAnswerError
from expertmesh.assistants.view import View
from expertmesh.clients.chat import client_key
from expertmesh.clients.chat_stream import ChatError, LostError
from expertmesh.clients.transcript import Thinking
from expertmesh.cluster.state import DEFAULT_URL, running_url
from expertmesh.commands.interrupts import term_as_interrupt
from expertmesh.console import (
    EXIT_FAILED,
    EXIT_NOT_RUNNING,
    EXIT_USAGE,
    CommandError,
    command_errors,
    stderr,
)

EXIT_INTERRUPTED = 130
_NOT_NOW = (429, 503)
"""With one of these a server that is there says that it cannot answer yet."""

Work = Callable[[TextModel, View], Awaitable[int]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which server, as whom, for which model, with which sampling."""

    base_url: str
    api_key: str | None
    model: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    thinking: Thinking = Thinking.FOLDED


def asked(
    base_url: str | None,
    run_dir: Path | None,
    api_key: str | None,
    api_key_file: Path | None,
    model: str | None,
    thinking: Thinking,
    **sampling: Any,
) -> Asked:
    """From the flags of a command; sampling that is None is the server's. Raises CommandError."""
    return Asked(
        base_url=base_url or running_url(run_dir) or DEFAULT_URL,
        api_key=client_key(api_key, api_key_file),
        model=model,
        sampling={name: value for name, value in sampling.items() if value is not None},
        thinking=thinking,
    )


def run_assistant(request: Asked, work: Work) -> int:
    """What `work` returns, an exit code; 130 when it was interrupted. Raises CommandError."""
    try:
        return asyncio.run(_run(request, work))
    except (KeyboardInterrupt, asyncio.CancelledError):  # the second is SIGTERM
        stderr().print("interrupted", style="yellow")
        return EXIT_INTERRUPTED
    except (UselessAnswerError, SandboxUnavailableError) as error:
        raise CommandError(str(error), EXIT_FAILED) from None
    except ChatError as error:
        is_away = isinstance(error, LostError) or getattr(error, "status", 0) in _NOT_NOW
        code = EXIT_NOT_RUNNING if is_away else EXIT_FAILED
        raise CommandError(f"{error}{_hint(error)}", code) from None


async def _run(request: Asked, work: Work) -> int:
    view = View(stderr(), request.thinking)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(contextlib.closing(view))
        stack.enter_context(term_as_interrupt())
        opened = open_model(
            request.base_url,
            api_key=request.api_key,
            name=request.model,
            sampling=request.sampling,
            on_wait=view.waits,
        )
        with command_errors(EXIT_USAGE):
            model = await stack.enter_async_context(opened)
        return await work(model, view)


def _hint(error: ChatError) -> str:
    return "; does `expertmesh status` show a cluster?" if isinstance(error, LostError) else ""
