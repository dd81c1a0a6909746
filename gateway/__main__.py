"""`python -m gateway`: one gateway."""

import sys
from collections.abc import Sequence

from rpc.service_main import loading, run_service

DESCRIPTION = """The HTTP edge: an OpenAI-shaped API in front of attention services.

Example:
  expertmesh serve gateway --model ~/models/minimax-m2 --router 127.0.0.1:50050"""


def main(argv: Sequence[str] | None = None) -> int:
    with loading("gateway"):
        from gateway.config import GatewayConfig
        from gateway.service import GatewayService
    return run_service("gateway", GatewayConfig, GatewayService, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())
