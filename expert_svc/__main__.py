"""`python -m expert_svc`: one expert pool."""

import asyncio
import logging
import sys
from collections.abc import Sequence

from expert_svc.config import ExpertConfig
from expert_svc.pool import ExpertPool
from rpc.flags import parse_config
from rpc.server import configure_logging, exit_while_loading

DESCRIPTION = """One expert pool: holds (layer, expert) pieces in memory and computes them for attention
services. Give it a checkpoint folder (only the pieces it is assigned are read) and a router to join."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Exit status: 0 clean stop, 1 failure, 2 bad flags or files."""
    arguments = sys.argv[1:] if argv is None else argv
    config = parse_config(
        ExpertConfig, arguments, prog="expertmesh serve expert", description=DESCRIPTION
    )
    configure_logging("expert", config.log_level)
    exit_while_loading()
    try:
        return asyncio.run(_serve(config))
    except ValueError as error:
        logging.getLogger(__name__).error("%s", error)
        return 2


async def _serve(config: ExpertConfig) -> int:
    # Inside the loop: a grpc.aio server belongs to the loop it was made in.
    return await ExpertPool(config).run()


if __name__ == "__main__":
    sys.exit(main())
