"""How does a service's process start and end? Flags, logging, one event loop, an exit status."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from rpc.logs import configure_logging
from rpc.process.env_names import unknown_names_warning
from rpc.process.flags import parse_config
from rpc.process.open_files import AcceptErrors, raise_open_files
from rpc.process.server import exit_at_signal, ignore_hangups

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=Any)


class Service(Protocol):
    """The work of one process."""

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status."""


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """For a service's imports: if a library cannot be loaded, exit with a one-line message."""
    ignore_hangups()
    try:
        yield
    except (ImportError, OSError, MemoryError) as error:
        # A missing package or name is a fault of the installation: the traceback shows it.
        if isinstance(error, ModuleNotFoundError) or "cannot import name" in str(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        sys.stderr.write(
            f"expertmesh serve {name}: cannot load its libraries: {reason}; do the memory and the "
            "address space suffice (ulimit -v, the container's limit)?\n"
        )
        raise SystemExit(1) from None


def run_service(
    name: str,
    config_type: type[Config],
    build: Callable[[Config], Service],
    description: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Run until SIGTERM or SIGINT. Exit status: 0 clean stop, 1 failure, 2 bad flags or files.

    `build` is called on the loop, because a grpc.aio server belongs to the loop that creates it.
    """
    ignore_hangups()
    warning = unknown_names_warning(os.environ)
    if warning:  # before the flags: a misspelt name may be why one is missing
        sys.stderr.write(f"expertmesh serve {name}: {warning}\n")
    config = parse_config(
        config_type,
        sys.argv[1:] if argv is None else argv,
        prog=f"expertmesh serve {name}",
        description=description,
    )
    configure_logging(name, config.log_level)
    raise_open_files()
    exit_at_signal("before serving")

    async def serve() -> int:
        asyncio.get_running_loop().set_exception_handler(AcceptErrors())
        return await build(config).run()

    try:
        return asyncio.run(serve())
    except ValueError as error:
        log.error("%s", error)
        return 2
    except MemoryError as error:
        log.error("out of memory %s", error)
        return 1
