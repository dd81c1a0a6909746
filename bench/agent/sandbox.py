"""What does a sandbox cost around a command, `python3 -c pass`?

By each kind that works here, and beside them the same command without any, one after the other, so
that noise hits all. Milliseconds; the last line is JSON. As root it works in a folder of nobody's.

    python bench/agent/sandbox.py --runs 30
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from expertmesh.agent.sandbox.bubblewrap import BubblewrapSandbox
from expertmesh.agent.sandbox.folders.drop_root import identity_for
from expertmesh.agent.sandbox.folders.identity import give_away
from expertmesh.agent.sandbox.folders.places import lay_out
from expertmesh.agent.sandbox.landlock.sandbox import LandlockSandbox
from expertmesh.agent.sandbox.policy import Sandbox, SandboxUnavailableError
from expertmesh.agent.sandbox.probe import probe
from expertmesh.agent.sandbox.unconfined import Unconfined

COMMAND = ["/usr/bin/python3", "-c", "pass"]
TARGET_MS = 150.0


def working(work: Path) -> dict[str, Sandbox]:
    identity = identity_for(work)
    places = lay_out(work, "workspace", (), identity)
    found: dict[str, Sandbox] = {"none": Unconfined(work)}
    for kind in (BubblewrapSandbox, LandlockSandbox):
        try:
            sandbox = kind(places, identity)
            probe(sandbox, has_namespaces=kind is BubblewrapSandbox)
        except SandboxUnavailableError as error:
            print(f"{kind.__name__}: {error}")
        else:
            found[sandbox.mechanism] = sandbox
    return found


async def measure(sandboxes: dict[str, Sandbox], runs: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {name: [] for name in sandboxes}
    for _ in range(runs):
        for name, sandbox in sandboxes.items():
            started_s = time.perf_counter()
            outcome = await sandbox.run(COMMAND)
            took[name].append(1000 * (time.perf_counter() - started_s))
            assert outcome.ok, outcome
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="expertmesh-bench-") as name:
        work = Path(name)
        give_away(work)
        took = asyncio.run(measure(working(work), arguments.runs))
    result = {
        name: {
            "median_ms": round(statistics.median(times), 1),
            "p90_ms": round(sorted(times)[int(0.9 * (len(times) - 1))], 1),
            "min_ms": round(min(times), 1),
        }
        for name, times in took.items()
    }
    for name, each in result.items():
        print(f"{name}: {each}")
    load = [round(one, 1) for one in os.getloadavg()]
    print(json.dumps({"target_ms": TARGET_MS, "runs": arguments.runs, "load": load, **result}))


if __name__ == "__main__":
    main()
