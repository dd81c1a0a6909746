"""Run `supervise` on stand-in services, in a process of its own: signals end processes.

Usage: fake_cluster.py RUN_DIR JOURNAL NAME=FLAGS... (extra flags of one service)
"""

import os
import sys
from pathlib import Path

from expertmesh.cluster.spec import ClusterPlan, ServiceSpec
from expertmesh.cluster.state import RunDir
from expertmesh.commands.up.supervise import supervise
from expertmesh.console import CommandError, stderr, stdout

STAGES = {"router": 0, "pool-0": 1, "pool-1": 1, "attention": 1, "gateway": 2}


def main() -> int:
    run_dir, journal, *settings = sys.argv[1:]
    extra = {name: flags.split() for name, _, flags in (text.partition("=") for text in settings)}
    ask = extra.pop("ask", None)
    group = extra.pop("group", [])
    told = extra.pop("told", [])
    services = tuple(
        ServiceSpec(
            name=name,
            module="fake_service",
            stage=stage,
            flags=(
                *("--journal", f"{journal}:{name}"),
                *(("--kind", "http") if name == "gateway" else ()),
                *extra.get(name, ()),
            ),
            dials=(
                *((("--router", "router"),) if stage else ()),
                *((("--told", one) for one in told) if name == "gateway" else ()),
            ),
            group="pool" if name in group else "",
        )
        for name, stage in STAGES.items()
    )
    try:
        return supervise(
            ClusterPlan(model="fake", description="fake", services=services),
            RunDir(Path(run_dir)),
            ask=" ".join(ask) if ask else None,
            start_timeout_s=float(os.environ.get("FAKE_START_TIMEOUT_S", "20")),
            out=stdout(),
            notes=stderr(),
        )
    except CommandError as error:
        sys.stderr.write(f"expertmesh: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
