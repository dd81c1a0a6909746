"""What does `expertmesh doctor` say about GPUs? What they are, how they are, what they can do."""

import csv
import importlib.metadata
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from expertmesh.check import Check, Verdict, judged
from expertmesh.cluster.found_gpus import DRIVERS
from moe_model.formats import ON_GPU
from moe_model.gpus import (
    MEASURED,
    Gpu,
    Gpus,
    driver_cuda,
    probe,
    read_gpus,
    torch_cuda,
    unconnected,
)
from moe_model.memory_need import gib

_FIELDS = ("uuid", "driver_version", "ecc.errors.uncorrected.volatile.total")


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """Versions are as in 13.0. `smi`: by UUID, the driver and ECC errors as nvidia-smi has them."""

    gpus: Gpus
    free: Mapping[str, int] = field(default_factory=dict)
    has_driver: bool = False
    torch_cuda: str | None = None
    driver_cuda: str | None = None
    triton: str = ""
    unconnected: tuple[tuple[str, str], ...] = ()
    smi: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def check_gpus() -> list[Check]:
    return checks_of(read_facts())


def checks_of(facts: GpuFacts) -> list[Check]:
    """A check of each GPU, and of what they share; one that says why there are none."""
    found = facts.gpus.found
    if not found:
        advice = "a driver is here: install torch for CUDA, or a driver as new as torch's CUDA"
        return [judged("gpus", not facts.has_driver, f"none: {facts.gpus.problem}", advice)]
    checks = [_check_gpu(gpu, facts) for gpu in found]
    checks += [_check_driver(facts), _check_triton(facts)]
    return [*checks, *([_check_peers(facts)] if len(found) > 1 else [])]


def _check_gpu(gpu: Gpu, facts: GpuFacts) -> Check:
    name = f"gpu {gpu.index}"
    free = facts.free.get(gpu.device)
    parts = [gpu.name, gib(gpu.total_bytes) + ("" if free is None else f" ({gib(free)} free)")]
    _, errors = facts.smi.get(gpu.uuid.removeprefix("GPU-"), ("", ""))
    if errors.isdecimal():
        parts.append(f"{errors} uncorrected ECC errors" if int(errors) else "no ECC errors")
    if gpu.lost:
        advice = "reset it or restart the machine; its driver's log (dmesg) has the cause"
        return Check(name=name, verdict=Verdict.FAILED, found=gpu.lost, advice=advice)
    if gpu.problem:
        found = ", ".join([*parts, gpu.architecture])
        return Check(name=name, verdict=Verdict.WARNING, found=found, advice=gpu.problem)
    measured = "" if gpu.capability in MEASURED else ", not measured"
    parts.append(f"{gpu.architecture}{measured}: kernels for {', '.join(ON_GPU)}")
    is_sound = not errors.isdecimal() or int(errors) == 0
    return judged(name, is_sound, ", ".join(parts), "its memory is damaged: reset or replace it")


def _check_driver(facts: GpuFacts) -> Check:
    versions = {driver for driver, _ in facts.smi.values() if driver}
    driver = f" ({', '.join(sorted(versions))})" if versions else ""
    found = f"serves CUDA {facts.driver_cuda or 'unknown'}{driver}; torch is for {facts.torch_cuda}"
    # Within a major version, newer CUDA runs with older drivers.
    known = facts.driver_cuda and facts.torch_cuda
    is_new = not known or _major(facts.driver_cuda) >= _major(facts.torch_cuda)
    return judged("gpu driver", is_new, found, "update the driver, or install torch for its CUDA")


def _check_triton(facts: GpuFacts) -> Check:
    advice = "pip install 'expertmesh[cuda]': without it torch computes, in f32 and bf16 only"
    return judged("triton", bool(facts.triton), facts.triton or "not installed", advice)


def _check_peers(facts: GpuFacts) -> Check:
    apart = ", ".join(f"{one} and {other}" for one, other in facts.unconnected)
    found = f"none between {apart}" if apart else "between all GPUs"
    return Check(name="peer access", verdict=Verdict.OK, found=found)


def _major(version: str | None) -> int:
    return int((version or "0").partition(".")[0])


def read_facts() -> GpuFacts:
    gpus, free = probe(read_gpus())
    usable = [one for one in gpus.found if not one.problem]
    return GpuFacts(
        gpus=gpus,
        free=free,
        has_driver=any(driver.exists() for driver in DRIVERS),
        torch_cuda=torch_cuda(),
        driver_cuda=driver_cuda(),
        triton=importlib.metadata.version("triton") if gpus.has_triton else "",
        unconnected=tuple(unconnected(usable)),
        smi=read_smi(_ask_smi()) if gpus.found else {},
    )


def read_smi(text: str) -> dict[str, tuple[str, str]]:
    """UUID without its prefix -> (driver's version, uncorrected ECC errors or what is said)."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    return {
        row[0].removeprefix("GPU-"): (row[1], row[2]) for row in rows if len(row) == len(_FIELDS)
    }


def _ask_smi() -> str:
    """nvidia-smi's answer; nothing where it is not installed or does not answer."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout
