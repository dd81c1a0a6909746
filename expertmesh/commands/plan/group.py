"""`expertmesh plan`: which host would hold what, and how fast could that be?"""

from pathlib import Path

import typer
from rich.table import Table

from expertmesh.cluster.card_layers import DEFAULT_POSITIONS
from expertmesh.cluster.cluster_plan import demo_model_dir, describe
from expertmesh.commands.plan.gpus import show_gpu_plan
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_FAILED,
    EXIT_USAGE,
    JSON,
    command_errors,
    help_text,
    print_json,
    stderr,
    stdout,
)
from expertmesh.forecasting.forecast import Forecast, Machine, forecast
from moe_model.config import ModelConfig
from moe_model.families.known import load_config, parse_config
from moe_model.formats import FORMATS, ON_GPU, read_format
from moe_model.json_files import read_json
from router_svc.placement.planner import STRIPINGS
from rpc.mesh.pieces import Pieces
from rpc.process.sizes import format_bytes, parse_bytes

_HELP = f"""Show which host would hold which experts, and how fast that could be.

Needs only config.json, so it works before the weights are downloaded. The speed is an upper bound
for the experts' part of each step: the time to read the activated experts' weights from memory
once, and one network round trip per layer. Attention takes extra time.

Examples:

  expertmesh plan --pools 2 --memory 4GiB

  expertmesh plan --model ~/models/minimax-m2 \\
    --host east:256GiB:100GB --host west:256GiB:100GB

  expertmesh plan --model config.json \\
    --pools 4 --memory 128GiB --format fp8 --replicas 2

  expertmesh plan --model config.json \\
    --gpus 2 --gpu-memory-gb 80 --linear-format fp8

{EXIT_CODES_HELP} 1 also means that not everything fits.
"""

HOST = typer.Option(
    [],
    envvar="EXPERTMESH_HOST",
    help="A host as NAME:MEMORY[:BANDWIDTH], for example east:192GiB:100GB; repeat for more.",
)
POOLS = typer.Option(
    0, envvar="EXPERTMESH_PLAN_POOLS", help="Number of equal hosts, instead of --host."
)
MEMORY = typer.Option(
    "", envvar="EXPERTMESH_PLAN_MEMORY", help="With --pools: memory of each host, like 128GiB."
)
FORMAT = typer.Option(
    "bf16",
    "--format",
    envvar="EXPERTMESH_FORMAT",
    help=f"Format of the experts' weights: {', '.join(FORMATS)}.",
)
REPLICAS = typer.Option(
    1,
    envvar="EXPERTMESH_PLAN_REPLICAS",
    min=1,
    max=16,
    help="Number of hosts that hold each expert.",
)
GPUS = typer.Option(
    0,
    envvar="EXPERTMESH_GPUS",
    help="Number of equal GPUs, instead of hosts: which formats fit, with how long a KV cache.",
)
GPU_MEMORY_GB = typer.Option(
    0.0,
    envvar="EXPERTMESH_GPU_MEMORY_GB",
    help="With --gpus: memory of each in GiB, as `expertmesh doctor` shows it, like 80.",
)
GPU_MEMORY = typer.Option(
    0.9, envvar="EXPERTMESH_GPU_MEMORY", help="With --gpus: the share that services may use."
)
POSITIONS = typer.Option(
    DEFAULT_POSITIONS,
    envvar="EXPERTMESH_POSITIONS",
    help="With --gpus: positions for which the first one must have keys and values.",
)
LINEAR_FORMAT = typer.Option(
    "bf16",
    envvar="EXPERTMESH_LINEAR_FORMAT",
    help="With --gpus: format of attention's weights and the LM head.",
)
STRIPING = typer.Option(
    "layer", envvar="EXPERTMESH_STRIPING", help="Spread whole layers, or experts: layer, expert."
)


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_HELP))(plan)


def plan(
    model: Path | None = typer.Option(
        None,
        envvar="EXPERTMESH_MODEL",
        help="Checkpoint folder or config.json. Default: the bundled demonstration model.",
    ),
    host: list[str] = HOST,
    pools: int = POOLS,
    memory: str = MEMORY,
    bandwidth: str = typer.Option(
        "",
        envvar="EXPERTMESH_BANDWIDTH",
        help="With --pools: memory bandwidth in bytes/s, like 100GB.",
    ),
    weight_format: str = FORMAT,
    replicas: int = REPLICAS,
    striping: str = STRIPING,
    gpus: int = GPUS,
    gpu_memory_gb: float = GPU_MEMORY_GB,
    gpu_memory: float = GPU_MEMORY,
    positions: int = POSITIONS,
    linear_format: str = LINEAR_FORMAT,
    batch: int = typer.Option(
        1, envvar="EXPERTMESH_BATCH", min=1, max=4096, help="Number of sequences decoded at once."
    ),
    round_trip_ms: str = typer.Option(
        "0.25-1.0",
        envvar="EXPERTMESH_ROUND_TRIP_MS",
        help="Round trip of one expert call, as LOW-HIGH.",
    ),
    plot: Path | None = typer.Option(
        None,
        envvar="EXPERTMESH_PLAN_PLOT",
        help="Draw memory and layers of each host into this PNG (needs matplotlib).",
    ),
    as_json: bool = JSON,
) -> None:
    path = model or demo_model_dir()
    with command_errors(EXIT_USAGE):
        if gpus:
            if host or pools:
                raise ValueError("--gpus: give either GPUs or hosts")
            fits = show_gpu_plan(
                read_config(path),
                path,
                gpus=gpus,
                memory_gb=gpu_memory_gb,
                share=gpu_memory,
                linear_format=read_format("--linear-format", linear_format, list(ON_GPU)),
                positions=positions,
                hop_s=_round_trip_s(round_trip_ms)[0],
                as_json=as_json,
            )
            raise typer.Exit(0 if fits else EXIT_FAILED)
        weight_format = read_format("--format", weight_format, list(FORMATS))
        if striping not in STRIPINGS:
            raise ValueError(f"--striping: one of {', '.join(STRIPINGS)}, got {striping!r}")
        made = forecast(
            read_config(path),
            machines(host, pools, memory, bandwidth),
            weight_format=weight_format,
            replicas=replicas,
            striping=striping,
            batch=batch,
            round_trip_s=_round_trip_s(round_trip_ms),
        )
        if plot is not None:
            from expertmesh.forecasting.forecast_plot import save_forecast

            save_forecast(made, plot, str(path))
    if as_json:
        print_json({"model": str(path), **made.as_json()})
    else:
        _print(made, path)
    if made.problems():
        raise typer.Exit(EXIT_FAILED)


def read_config(path: Path) -> ModelConfig:
    """The config of a checkpoint folder or of a config.json itself. Raises ValueError."""
    if path.is_dir():
        return load_config(path)
    if not path.exists():
        raise ValueError(f"--model {path}: neither a checkpoint folder nor a config.json")
    return parse_config(read_json(path))


def machines(hosts: list[str], pools: int, memory: str, bandwidth: str) -> list[Machine]:
    """The hosts that the flags name. Raises ValueError."""
    if bool(hosts) == bool(pools):
        raise ValueError(
            "give either --host NAME:MEMORY[:BANDWIDTH] for each host, or --pools and --memory,"
            " or --gpus and --gpu-memory-gb"
        )
    if hosts:
        return [Machine.parse(text) for text in hosts]
    memory_bytes = parse_bytes(memory, "--memory")
    if memory_bytes is None or not 1 <= pools <= 1000:
        raise ValueError("--pools: 1 to 1000, together with --memory, for example 128GiB")
    speed = parse_bytes(bandwidth, "--bandwidth")
    return [
        Machine(name=f"pool-{index}", memory_bytes=memory_bytes, bandwidth=speed)
        for index in range(pools)
    ]


def _round_trip_s(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    try:
        bounds = float(low) / 1000, float(high or low) / 1000
    except ValueError:
        bounds = (0.0, 0.0)
    if not 0 < bounds[0] <= bounds[1] < 1000:
        raise ValueError(f"--round-trip-ms: expected LOW-HIGH like 0.25-1.0, got {text!r}")
    return bounds


def _print(made: Forecast, path: Path) -> None:
    out = stdout()
    out.print(f"{path}: {describe(made.config)}", markup=False, soft_wrap=True)
    table = Table("host", "memory", "experts", "weights", "layers", box=None)
    for one in made.machines:
        hold = made.plan.hold[one.name]
        table.add_row(
            one.name,
            format_bytes(one.memory_bytes),
            f"{len(hold):,}",
            format_bytes(made.held_bytes(one)),
            _layers_text(hold, made.config.num_experts),
        )
    out.print(table)
    out.print(
        f"one expert: {format_bytes(made.piece_bytes)} in {made.weight_format}; for each token "
        f"{made.calls_per_layer:.2f} expected calls per layer, and "
        f"{made.wire_bytes_per_token / 1024:,.0f} KiB on the wire"
    )
    low, high = made.tokens_per_s
    known = all(one.bandwidth for one in made.machines)
    out.print(
        f"at most {low:.1f} to {high:.1f} tokens/s with {made.batch} sequence(s), expert side only"
        + ("" if known else " (some hosts have no bandwidth: only their round trips count)")
    )
    for problem in made.problems():
        stderr().print(problem, markup=False, soft_wrap=True)


def _layers_text(hold: Pieces, num_experts: int) -> str:
    whole = [layer for layer in hold.layers if hold.count(layer) == num_experts]
    parts = len(hold.layers) - len(whole)
    runs = Pieces.grid((0,), whole).to_message().layers[0].ranges if whole else ()
    ranges = ",".join(
        str(run.first) if run.count == 1 else f"{run.first}-{run.first + run.count - 1}"
        for run in runs
    )
    return " and ".join(filter(None, [ranges, f"parts of {parts}" if parts else ""])) or "none"
