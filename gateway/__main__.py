"""python -m gateway: flags, build, serve."""

import asyncio
import sys
from collections.abc import Sequence

from gateway.config import GatewayConfig
from gateway.service import GatewayService
from rpc.flags import parse_config
from rpc.server import configure_logging, until_stopped


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 after SIGTERM or SIGINT, 2 for bad flags or files."""
    config = parse_config(
        GatewayConfig,
        sys.argv[1:] if argv is None else argv,
        prog="expertmesh serve gateway",
        description="The HTTP edge: an OpenAI-shaped API in front of attention services.",
    )
    configure_logging("gateway", config.log_level)
    try:
        return asyncio.run(_serve(config))
    except ValueError as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2


async def _serve(config: GatewayConfig) -> int:
    service = GatewayService(config)
    await service.start()
    await until_stopped(service.stop, service.abort)
    return 0


if __name__ == "__main__":
    sys.exit(main())
