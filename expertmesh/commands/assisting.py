"""How does a command of an assistant run? It connects, works, and turns failures into one line."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from expertmesh.agent.sandbox.policy import SandboxUnavailableError
from expertmesh.assistants.asking.model import TextModel, open_model
from expertmesh.assistants.asking.structured import UselessAnswerError
from expertmesh.assistants.view import View
from expertmesh.clients.chat_stream import ChatError, LostError
from expertmesh.commands.interrupts import term_as_interrupt
from expertmesh.commands.model_flags import Asked
from expertmesh.console import (
    EXIT_FAILED,
    EXIT_NOT_RUNNING,
    EXIT_USAGE,
    CommandError,
    command_errors,
    stderr,
)

EXIT_NOT_HELD = 5
"""What was asked for was done, and does not hold what the user wants to hold."""
EXIT_INTERRUPTED = 130
_NOT_NOW = (429, 503)
"""With one of these a server that is there says that it cannot answer yet."""

Work = Callable[[TextModel, View], Awaitable[int]]


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
