"""`expertmesh bench replay`: how do the pools handle a recorded load? Without a model."""

import asyncio
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from expertmesh.clients.router import DialledRouter, asks_router, call
from expertmesh.cluster.cluster_plan import demo_model_dir
from expertmesh.commands.plan.group import read_config
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
from expertmesh.loadgen.routing_file import SUFFIX
from protos import router_pb2

HELP = help_text(f"""Replay a recording of `expertmesh experts record` against the pools.

Needs a running router and pools, but no attention service and no weights: of --model only
config.json is read. A recording made with --exact is replayed step by step; several streams take
turns with its steps. From a JSON recording, the experts of each row are drawn at random with the
recorded frequencies: each expert gets its share of the load, but not together with the same others
or at the same time.

Examples:

  expertmesh experts record --out load.json --seconds 60

  expertmesh bench replay load.json --streams 8 --rows 4 --steps 200

  expertmesh experts record --exact --out load.safetensors --seconds 60

  expertmesh bench replay load.safetensors --streams 1

With mTLS it needs a certificate with role attention, because it calls pools.

{EXIT_CODES_HELP} 1 also means that calls failed.
""")


@asks_router
def replay(
    router: DialledRouter,
    recording: Path = typer.Argument(..., help="File written by `expertmesh experts record`."),
    model: Path | None = typer.Option(
        None,
        envvar="EXPERTMESH_MODEL",
        help="Checkpoint folder or config.json. Default: the bundled demonstration model.",
    ),
    streams: int = typer.Option(
        8, envvar="EXPERTMESH_STREAMS", min=1, max=1024, help="Number of steps under way at once."
    ),
    rows: int = typer.Option(
        1, envvar="EXPERTMESH_ROWS", min=1, max=512, help="JSON recording: tokens in each step."
    ),
    steps: int = typer.Option(
        100,
        envvar="EXPERTMESH_STEPS",
        min=1,
        max=1_000_000,
        help="JSON recording: steps of each stream.",
    ),
    seed: int = typer.Option(0, envvar="EXPERTMESH_SEED", help="Equal seeds draw equal experts."),
    as_json: bool = JSON,
) -> None:
    # Imported here because they import torch, which no other command should wait for.
    from expertmesh.loadgen.replay import check_model, run_replay
    from expertmesh.loadgen.routing import Drawn, Routing, read_counts, read_steps

    topology = call(router.stub.GetTopology, router_pb2.GetTopologyRequest()).topology
    with command_errors(EXIT_USAGE):
        config = read_config(model or demo_model_dir())
        check_model(config, topology)
        routing: Routing
        if recording.suffix == SUFFIX:
            routing = read_steps(recording, config)
        else:
            routing = Drawn(
                tokens=read_counts(recording, config),
                num_steps=steps,
                num_rows=rows,
                top_k=config.top_k,
                seed=seed,
            )
    with command_errors():
        result = asyncio.run(
            run_replay(
                routing, streams, config, router.address, router.access, topology.checkpoint_id
            )
        )
    if as_json:
        print_json(result)
    else:
        _print(result)
    if result["failed_calls"]:
        raise typer.Exit(EXIT_FAILED)


def _print(result: dict[str, Any]) -> None:
    out = stdout()
    out.print(
        f"{result['steps']} steps with {result['rows']} rows in total in "
        f"{result['duration_s']:.1f} s, {result['rows_per_s']:.0f} rows/s; "
        f"{result['failed_calls']} of {result['calls']} calls failed"
    )
    for failure in result["failures"]:
        stderr().print(failure, markup=False, soft_wrap=True)
    times = Table("", "median", "p90", "p99", "longest", box=None)
    for name, what in (("call", "one layer's call, ms"), ("step", "all layers, ms")):
        times.add_row(what, *(f"{value:.2f}" for value in result[name].values()))
    out.print(times)
    pools = Table("pool", "calls", "computing", box=None)
    for pool_id, entry in result["pools"].items():
        pools.add_row(pool_id, str(entry["calls"]), f"{entry['compute_s']:.2f} s")
    out.print(pools)
    out.print(f"the busiest pool computed for {result['imbalance']:.2f} x the mean time")
