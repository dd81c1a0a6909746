"""`python -m tests.support.chaos.lossy_mesh`: load over links that lose packets.

Runs in a network namespace of its own and ends by itself. The last line is JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.support.chaos import network
from tests.support.chaos.rig import ALL, Rig

LOSSES = (0.01, 0.05)
LOSSY_S = 4.0


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, Rig(Path(folder), (ALL, ALL)) as rig:
        ports = [int(pool.address.rpartition(":")[2]) for pool in rig.pools]
        with rig.load(3) as load:
            load.warm()
            for share in LOSSES:
                network.lose(ports, share)
                time.sleep(LOSSY_S)
                network.heal()
        verdict = rig.oracle.check(load.histories)
        print(json.dumps({"problems": verdict.problems, "ejections": rig.ejections()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
