"""Run commands in a sandbox of a given kind: `python -m tests.support.expertmesh.sandbox.runner`.

The orders come as JSON in the first argument: kind, work, mode, protected, and a list of `runs`,
each with argv and other arguments of `Sandbox.run`. The last line is JSON: the outcomes.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from expertmesh.agent.sandbox.bubblewrap import BubblewrapSandbox
from expertmesh.agent.sandbox.folders.drop_root import identity_for
from expertmesh.agent.sandbox.folders.places import lay_out
from expertmesh.agent.sandbox.landlock.sandbox import LandlockSandbox
from expertmesh.agent.sandbox.policy import Limits, Mode, Sandbox
from expertmesh.agent.sandbox.unconfined import Unconfined

KINDS = {"bubblewrap": BubblewrapSandbox, "landlock": LandlockSandbox}


def make(kind: str, work: Path, mode: Mode = "workspace", protected: Any = ()) -> Sandbox:
    """A sandbox of this kind, whether or not it would be chosen."""
    if kind == "none":
        return Unconfined(work)
    identity = identity_for(work)
    places = lay_out(work, mode, [Path(one) for one in protected], identity)
    return KINDS[kind](places, identity)


async def run_all(orders: dict[str, Any]) -> list[dict[str, Any]]:
    sandbox = make(
        orders["kind"],
        Path(orders["work"]),
        orders.get("mode", "workspace"),
        orders.get("protected", ()),
    )
    outcomes = []
    for run in orders["runs"]:
        arguments = dict(run)
        limits = Limits(**arguments.pop("limits", {}))
        outcome = await sandbox.run(arguments.pop("argv"), limits=limits, **arguments)
        outcomes.append(asdict(outcome))
    return outcomes


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run_all(json.loads(sys.argv[1])))))
