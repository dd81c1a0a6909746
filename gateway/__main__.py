"""`python -m gateway`: one gateway."""

import gc
import sys
from collections.abc import Sequence

from rpc.process.service_main import loading, run_service

DESCRIPTION = """The HTTP edge: an OpenAI-shaped API in front of attention services.

Example:

  expertmesh serve gateway --model ~/models/minimax-m2 --router 127.0.0.1:50050"""


_THREAD_SWITCH_S = 0.0005
"""How long the event loop waits for the interpreter lock while a thread parses a large body. A
request takes dozens of turns of the loop."""


def main(argv: Sequence[str] | None = None) -> int:
    with loading("gateway"):
        from gateway.config import GatewayConfig
        from gateway.service import GatewayService
    sys.setswitchinterval(_THREAD_SWITCH_S)
    # The objects of a large body trigger full garbage collections. Those stop every request, and
    # took 0.2 s when they also had to traverse everything that the modules hold.
    gc.freeze()
    return run_service("gateway", GatewayConfig, GatewayService, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())
