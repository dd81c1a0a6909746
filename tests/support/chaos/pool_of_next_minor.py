"""An expert pool of the next protocol minor."""

import sys

import expert_svc.service
import expert_svc.servicer
import rpc.config

NEXT = rpc.config.PROTOCOL_MINOR + 1


def main() -> int:
    from expert_svc.__main__ import main as run

    expert_svc.service.PROTOCOL_MINOR = expert_svc.servicer.PROTOCOL_MINOR = NEXT
    return run()


if __name__ == "__main__":
    sys.exit(main())
