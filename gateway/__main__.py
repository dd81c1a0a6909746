"""`python -m gateway`: one gateway."""

import gc
import sys
from collections.abc import Sequence

from rpc.process.service_main import loading, run_service

DESCRIPTION = """The HTTP edge: an OpenAI-shaped API in front of attention services.

Example:
  expertmesh serve gateway --model ~/models/minimax-m2 --router 127.0.0.1:50050"""


_THREAD_SWITCH_S = 0.0005
"""How long the event loop waits for the interpreter while a thread reads somebody's megabytes: at
each of its turns, of which a request takes dozens."""


def main(argv: Sequence[str] | None = None) -> int:
    with loading("gateway"):
        from gateway.config import GatewayConfig
        from gateway.service import GatewayService
    sys.setswitchinterval(_THREAD_SWITCH_S)
    # A large body's objects start full collections. Those stop everybody, and took 0.2 s with all
    # that the modules hold to be looked at.
    gc.freeze()
    return run_service("gateway", GatewayConfig, GatewayService, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())
