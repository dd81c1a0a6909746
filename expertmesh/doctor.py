"""Which facts about this machine decide whether ExpertMesh runs here, and how fast?

Each check is a function that returns a `Check` and changes nothing.
"""

import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from expertmesh.check import Check, Verdict, judged
from expertmesh.cluster.machine import (
    cpu_features,
    file_limit,
    port_problem,
    usable_cores,
)
from expertmesh.gpu_checks import check_gpus
from rpc.process.memory import available_memory_bytes
from rpc.process.sizes import format_bytes

MIN_FREE_MEMORY_BYTES = 2 * 10**9
MIN_FREE_DISK_BYTES = 2 * 10**9
MIN_FILE_LIMIT = 1024
SLOW_ROUND_TRIP_US = 2000.0
ROUND_TRIPS = 200


def run_checks(http_port: int, folder: Path) -> list[Check]:
    """Run all checks; one that raises counts as failed, and the others still run."""
    checks: list[tuple[str, Callable[[], Check | Sequence[Check]]]] = [
        ("python", check_python),
        ("torch", check_torch),
        ("cpu features", check_cpu),
        ("cores", check_cores),
        ("memory", check_memory),
        ("disk", lambda: check_disk(folder)),
        ("open files", check_files),
        ("http port", lambda: check_port(http_port)),
        ("cpu kernels", check_kernels),
        ("gpus", check_gpus),
        ("hop codec", check_hop_codec),
        ("agent sandbox", check_sandbox),
        ("agent browser", check_browser),
        ("grpc experiments", check_experiments),
        ("grpc round trip", check_round_trip),
    ]
    results: list[Check] = []
    for name, check in checks:
        try:
            found = check()
            results += [found] if isinstance(found, Check) else found
        except Exception as error:  # a broken installation may raise anything
            results.append(
                Check(name=name, verdict=Verdict.FAILED, found=f"{type(error).__name__}: {error}")
            )
    return results


def check_python() -> Check:
    found = f"{platform.python_version()} ({platform.machine()}, {sys.executable})"
    return Check(name="python", verdict=Verdict.OK, found=found)


def check_torch() -> Check:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Check(
        name="torch",
        verdict=Verdict.OK,
        found=f"{torch.__version__} ({build}), kernels {capability}",
    )


def check_cpu() -> Check:
    features = cpu_features()
    present = [name for name, there in features.items() if there]
    found = ", ".join(present) or "none of the fast ones"
    is_good = features["avx2"] or platform.machine() not in ("x86_64", "AMD64")
    return judged("cpu features", is_good, found, "without AVX2, experts are computed slowly")


def check_cores() -> Check:
    cores = usable_cores()
    found = f"{cores} usable of {os.cpu_count()}"
    return judged("cores", cores >= 2, found, "services will share one core")


def check_memory() -> Check:
    available = available_memory_bytes()
    return judged(
        "memory",
        available >= MIN_FREE_MEMORY_BYTES,
        f"{format_bytes(available)} free",
        "the demonstration cluster needs about 2 GB",
    )


def check_disk(folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{format_bytes(free)} free at {existing}"
    return judged("disk", free >= MIN_FREE_DISK_BYTES, found, "logs and checkpoints need room")


def check_files() -> Check:
    limit = file_limit()
    return judged(
        "open files",
        limit < 0 or limit >= MIN_FILE_LIMIT,
        "no limit" if limit < 0 else f"{limit} per process",
        f"raise it to {MIN_FILE_LIMIT} or more (ulimit -n)",
    )


def check_port(port: int) -> Check:
    problem = port_problem(port)
    return judged(
        "http port",
        problem is None,
        f"127.0.0.1:{port}: {problem or 'free'}",
        "a cluster may be running (`expertmesh status`); else use another --http-port",
    )


def check_kernels() -> Check:
    """What computes experts and linears, for each weight format."""
    import torch

    from moe_model.backends.choice import choose_backend
    from moe_model.formats import FORMATS

    backend, plain = choose_backend(torch.bfloat16), choose_backend(torch.float32)
    if backend.why:
        return Check(
            name="cpu kernels",
            verdict=Verdict.WARNING,
            found=f"torch: {backend.why}",
            advice="with torch, bf16 is slower, and int8, int4 and fp8 are too slow to serve",
        )
    chosen = {name: (plain if name == "f32" else backend).numerics(name) for name in FORMATS}
    ours = [name for name, numerics in chosen.items() if not numerics.why]
    others = [name for name, numerics in chosen.items() if numerics.why]
    isa, num_threads = chosen["bf16"].isa, backend.set_threads(0)
    return Check(
        name="cpu kernels",
        verdict=Verdict.OK,
        found=f"native on {isa}, {num_threads} threads: {', '.join(ours)}; "
        f"torch: {', '.join(others)}",
    )


def check_hop_codec() -> Check:
    """Whether the frames of expert calls are built and checked by native code."""
    from rpc.hop.codec import HopCodec

    is_native = HopCodec.best().native is not None
    slow = "protobuf in Python: each call to a pool takes about 0.4 ms longer"
    return judged(
        "hop codec",
        is_native,
        "native" if is_native else slow,
        "install a C compiler and Python's headers, reinstall, and unset EXPERTMESH_NATIVE",
    )


def check_sandbox() -> Check:
    """What commands of the agent run in: it is tried, in a folder of its own."""
    from expertmesh.agent.sandbox.choose import choose_sandbox
    from expertmesh.agent.sandbox.folders.identity import give_away
    from expertmesh.agent.sandbox.policy import SandboxUnavailableError

    with tempfile.TemporaryDirectory(prefix="expertmesh-doctor-") as name:
        folder = Path(name)
        give_away(folder)
        try:
            mechanism = choose_sandbox(folder).mechanism
        except SandboxUnavailableError as error:
            found, _, advice = str(error).rpartition("\n")
            return judged("agent sandbox", False, found, advice)
    found = f"{mechanism} (network, files, processes)"
    return Check(name="agent sandbox", verdict=Verdict.OK, found=found)


def check_browser() -> Check:
    """With what `agent --web` reads pages that scripts make; it can do without."""
    from expertmesh.agent.web.browser.programs import find_browser, find_bubblewrap

    program = find_browser()
    if program is None:
        found = "none: pages are read without their scripts (package chromium)"
    elif find_bubblewrap():
        found = f"{program} in bubblewrap (no network but our proxy)"
    else:
        found = f"{program}, kept to our proxy by its flags"
    return Check(name="agent browser", verdict=Verdict.OK, found=found)


def check_experiments() -> Check:
    import rpc  # noqa: F401 (sets the default before grpc is imported)

    value = os.environ.get("GRPC_EXPERIMENTS", "")
    return judged(
        "grpc experiments",
        "-event_engine_client" in value,
        f"GRPC_EXPERIMENTS={value}",
        "unset GRPC_EXPERIMENTS: the event engine slows every call",
    )


def check_round_trip() -> Check:
    """Call a real health service over loopback ROUND_TRIPS times."""
    from expertmesh.cluster.round_trip import health_round_trips_us

    median = statistics.median(health_round_trips_us(ROUND_TRIPS, timeout_s=10.0))
    return judged(
        "grpc round trip",
        median <= SLOW_ROUND_TRIP_US,
        f"{median:.0f} us median on loopback",
        "each MoE layer of each step takes at least this long; is the machine busy?",
    )
