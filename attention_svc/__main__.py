"""`python -m attention_svc`: one attention service."""

import asyncio
import logging
import sys
from collections.abc import Sequence

from attention_svc.config import AttentionConfig
from attention_svc.service import AttentionService
from rpc.flags import parse_config
from rpc.server import configure_logging, exit_while_loading

DESCRIPTION = """One attention service: owns sequences and their KV cache, runs the layer loop, and
calls remote expert pools at every MoE layer. Give it a checkpoint folder and a router to join."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Exit status: 0 clean stop, 1 failure, 2 bad flags or files."""
    arguments = sys.argv[1:] if argv is None else argv
    config = parse_config(
        AttentionConfig, arguments, prog="expertmesh serve attention", description=DESCRIPTION
    )
    configure_logging("attention", config.log_level)
    exit_while_loading()
    try:
        return asyncio.run(_serve(config))
    except ValueError as error:
        logging.getLogger(__name__).error("%s", error)
        return 2


async def _serve(config: AttentionConfig) -> int:
    # Inside the loop: a grpc.aio server belongs to the loop it was made in.
    return await AttentionService(config).run()


if __name__ == "__main__":
    sys.exit(main())
