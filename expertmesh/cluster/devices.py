"""Which service of the local cluster computes on which device?

Devices are dealt out in turn, attention services first, then pools. Services that were given the
same --device share its list: with cuda:0,cuda:1 attention gets cuda:0, the first pool cuda:1, the
second cuda:0. `auto` and `cuda` are lists of all GPUs that the kernels take.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from expertmesh.cluster.found_gpus import FoundGpus
from moe_model.gpus import Gpus, check_flags
from moe_model.memory_need import MemoryNeed, Room, gib

Needs = Callable[[str, str], MemoryNeed]
"""(service, device) -> what it takes there. Raises ValueError where it cannot be held."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """`devices`: by service. `left`: bytes for keys and values, by GPU. `why`: for people."""

    devices: Mapping[str, str]
    left: Mapping[str, int]
    why: str = ""


def place(
    wanted: Mapping[str, str],
    found: FoundGpus,
    needs: Needs,
    *,
    compute_dtype: str,
    share: float,
    kv_bytes: Mapping[str, int],
    advice: str,
) -> Placed:
    """Deals out the devices of `wanted`, service -> its --device, and checks that all fits.

    `share`: --gpu-memory; `kv_bytes`: the least of each attention service; `advice`: what to use
    where a GPU is too small.

    Raises:
        ValueError: a GPU that was named is not there, not taken or too small.
    """
    usable = [one for one in found.gpus.found if not one.problem]
    why = found.gpus.why_no_kernels(compute_dtype, usable[0] if usable else None)
    dealt = deal(wanted, found.gpus, auto_to_cpu=bool(why))
    try:
        left = _left(dealt, found, needs, share, kv_bytes, advice)
    except ValueError as error:
        if "auto" not in wanted.values():
            raise
        why = str(error)
        dealt = deal(wanted, found.gpus, auto_to_cpu=True)
        left = _left(dealt, found, needs, share, kv_bytes, advice)
    return Placed(devices=dealt, left=left, why=why if "auto" in wanted.values() else "")


def deal(wanted: Mapping[str, str], gpus: Gpus, *, auto_to_cpu: bool) -> dict[str, str]:
    """Service -> device. Raises ValueError for devices that are not there."""
    turns: dict[str, Iterator[str]] = {}
    dealt = {}
    for service, text in wanted.items():
        if text not in turns:
            turns[text] = itertools.cycle(listed(text, gpus, auto_to_cpu=auto_to_cpu))
        dealt[service] = next(turns[text])
    return dealt


def listed(text: str, gpus: Gpus, *, auto_to_cpu: bool) -> list[str]:
    """The devices that a --device names. Raises ValueError for one that is not there."""
    usable = [one.device for one in gpus.found if not one.problem]
    if text == "auto":
        return ["cpu"] if auto_to_cpu or not usable else usable
    if text == "cuda" and usable:
        return usable
    devices = []
    for one in text.split(","):
        check_flags(one, 1.0)
        if one == "auto":
            raise ValueError(f"--device {text}: a list names cpu and cuda:N")
        if one != "cpu":
            gpu = gpus.at(one)
            if gpu.problem:
                raise ValueError(f"--device {text}: {gpu.problem}")
            one = gpu.device
        devices.append(one)
    return devices


def _left(
    dealt: Mapping[str, str],
    found: FoundGpus,
    needs: Needs,
    share: float,
    kv_bytes: Mapping[str, int],
    advice: str,
) -> dict[str, int]:
    """What the services leave of each GPU. Raises ValueError for one that is too small."""
    left = {}
    for device in sorted({one for one in dealt.values() if one != "cpu"}):
        room = Room(gpu=found.gpus.at(device), share=share, free=found.free.get(device, 0))
        here = [service for service, one in dealt.items() if one == device]
        sizes = {one: needs(one, device).fixed for one in here}
        needed = sum(sizes.values()) + sum(kv_bytes.get(one, 0) for one in here)
        if needed > room.size:
            parts = ", ".join(f"{one} {gib(size)}" for one, size in sizes.items())
            raise ValueError(
                f"--device: {gib(needed)} of {device} are needed ({parts}, and keys and values), "
                f"and there are {room}; use {advice}"
            )
        left[device] = room.size - sum(sizes.values())
    return left
