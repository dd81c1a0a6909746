"""`python -m expert_svc`: one expert pool."""

import sys
from collections.abc import Sequence

from rpc.process.service_main import loading, run_service

DESCRIPTION = """One expert pool: holds (layer, expert) pieces in memory and computes them for
attention services. Give it a checkpoint folder (it reads only the pieces it is assigned) and a
router to join.

Example:

  expertmesh serve expert --model ~/models/minimax-m2 --router 127.0.0.1:50050 --memory 48GiB"""


def main(argv: Sequence[str] | None = None) -> int:
    with loading("expert"):
        from expert_svc.config import ExpertConfig
        from expert_svc.service import ExpertService
    return run_service("expert", ExpertConfig, ExpertService, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())
