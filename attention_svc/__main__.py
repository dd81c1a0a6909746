"""`python -m attention_svc`: one attention service."""

import gc
import sys
from collections.abc import Sequence

from rpc.process.service_main import loading, run_service

DESCRIPTION = """One attention service: owns sequences and their KV cache, runs the layer loop, and
calls remote expert pools at every MoE layer. Give it a checkpoint folder and a router to join.

Example:

  expertmesh serve attention --model ~/models/minimax-m2 --router 127.0.0.1:50050"""


def main(argv: Sequence[str] | None = None) -> int:
    with loading("attention"):
        from attention_svc.config import AttentionConfig
        from attention_svc.service import AttentionService
    # Every step makes objects for each row, and full garbage collections stop it: these need not
    # traverse what the modules hold.
    gc.freeze()
    return run_service("attention", AttentionConfig, AttentionService, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())
