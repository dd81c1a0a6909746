"""Which GPUs does this machine have, and how full are they? Asked of a process of its own.

`up` lives as long as its cluster: torch and a context on each GPU would stay in it.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from moe_model.gpus import Gpu, Gpus, probe, read_gpus

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of these is there with every driver that torch's CUDA works with."""
ASK_S = 120.0


@dataclass(frozen=True, kw_only=True)
class FoundGpus:
    """`free`: bytes by device."""

    gpus: Gpus = field(default_factory=partial(Gpus, problem="there is no NVIDIA driver here"))
    free: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({"gpus": asdict(self.gpus), "free": dict(self.free)})

    @classmethod
    def from_json(cls, text: str) -> "FoundGpus":
        raw = json.loads(text)
        found = [{**one, "capability": tuple(one["capability"])} for one in raw["gpus"]["found"]]
        gpus = Gpus(**{**raw["gpus"], "found": tuple(Gpu(**one) for one in found)})
        return cls(gpus=gpus, free=raw["free"])


def find_gpus(*, is_named: bool, drivers: tuple[Path, ...] = DRIVERS) -> FoundGpus:
    """`is_named`: a GPU was asked for by name, so that torch shall say why there is none."""
    if not is_named and not any(driver.exists() for driver in drivers):
        return FoundGpus()
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "expertmesh.cluster.found_gpus"],
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=True,
        )
        return FoundGpus.from_json(asked.stdout.strip().splitlines()[-1])
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        reason = said[-1] if said else f"status {error.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"no answer within {ASK_S:.0f} s"
    except (OSError, ValueError, IndexError) as error:
        reason = str(error)
    return FoundGpus(gpus=Gpus(problem=f"torch could not be asked for GPUs: {reason}"))


def main() -> None:
    gpus, free = probe(read_gpus())
    sys.stdout.write(FoundGpus(gpus=gpus, free=free).to_json() + "\n")


if __name__ == "__main__":
    main()
