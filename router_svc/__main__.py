"""`python -m router_svc`: flags, build, serve."""

import asyncio
import logging
import sys
from collections.abc import Sequence

from router_svc.config import RouterConfig
from router_svc.service import RouterService
from router_svc.streams import until_first
from rpc.flags import parse_config
from rpc.server import configure_logging, until_stopped

log = logging.getLogger(__name__)


async def serve(config: RouterConfig) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    try:
        service = RouterService(config)
        await service.start()
    except ValueError as error:
        log.error("%s", error)
        return 2
    log.info("ready")
    await until_first(service.run(), until_stopped(service.stop))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a signal, 2 for bad flags, files or ports, 1 for anything else."""
    config = parse_config(
        RouterConfig,
        sys.argv[1:] if argv is None else argv,
        prog="expertmesh serve router",
        description="The control plane of a mesh: who is a member, who holds which experts.",
    )
    configure_logging("router", config.log_level)
    return asyncio.run(serve(config))


if __name__ == "__main__":
    sys.exit(main())
