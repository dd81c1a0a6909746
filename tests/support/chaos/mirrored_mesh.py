"""`python -m tests.support.chaos.mirrored_mesh`: load over late, doubled and reordered packets.

Both pools are reached through the mirror. Runs in a network namespace of its own and ends by
itself. The last line is JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.support.chaos.history import Ask
from tests.support.chaos.mirror import FAR, NEAR, Mirror, Packets
from tests.support.chaos.rig import ALL, Rig
from tests.support.chaos.streams import Request

PHASES = {
    "late and overtaking": Packets(delay_s=0.010, jitter_s=0.005),
    "doubled": Packets(duplicate_ratio=0.05),
    "1 Mbit/s": Packets(bytes_per_s=125_000),
}
PHASE_S = 3.0
LONG = Ask(prompt=tuple(range(3, 303)), max_tokens=3)


def pool(port: int) -> tuple[str, ...]:
    return (*ALL, "--listen", f"{NEAR}:{port}", "--insecure", "--advertise", f"{FAR}:{port}")


def main() -> int:
    mirror = Mirror(seed=3)
    tokens: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        # Pools call from this side of the mirror and are called at the other.
        Rig(Path(folder), (pool(7001), pool(7002)), router_flags=("--member-network", FAR)) as rig,
    ):
        with rig.load(3) as load:
            load.warm()
            for name, packets in PHASES.items():
                before = sum(len(history.tokens) for history in load.histories)
                mirror.packets = packets
                if name == "late and overtaking":  # decode has few packets on their way at once
                    long = Request(rig.mesh.attention.address, LONG).wait()
                time.sleep(PHASE_S)
                tokens[name] = sum(len(history.tokens) for history in load.histories) - before
            mirror.packets = Packets()
        found = {
            "problems": rig.oracle.check([*load.histories, long]).problems,
            "ejections": rig.ejections(),
            "broken": rig.failures(kind="broken") + rig.failures(kind="unreachable"),
            "tokens": tokens,
            "passed": mirror.passed,
            "reordered": mirror.reordered,
            "duplicated": mirror.duplicated,
            "dropped": mirror.dropped,
        }
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
