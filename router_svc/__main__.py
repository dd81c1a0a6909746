"""`python -m router_svc`: the router."""

import sys
from collections.abc import Sequence

from rpc.process.service_main import loading, run_service

DESCRIPTION = """The control plane of a mesh: who is a member, who holds which experts.

Example:

  expertmesh serve router --replicas 2"""


def main(argv: Sequence[str] | None = None) -> int:
    with loading("router"):
        from router_svc.config import RouterConfig
        from router_svc.service import RouterService
    return run_service("router", RouterConfig, RouterService, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())
