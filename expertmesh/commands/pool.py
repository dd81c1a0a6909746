"""`expertmesh pool list` and `drain`: who holds what, and emptying one before it is stopped."""

import time

import typer
from rich.table import Table

from expertmesh.clients.router import DialledRouter, asks_router, call, pool_rows
from expertmesh.console import EXIT_CODES_HELP, CommandError, help_text, print_json, stdout
from protos import router_pb2

JSON = typer.Option(False, "--json", envvar="EXPERTMESH_JSON", help="For scripts.")
POLL_S = 0.2

_LIST_HELP = f"""Show the expert pools: state, pieces, load.

Examples:

  expertmesh pool list

  expertmesh pool list --json --router 10.77.0.1:50050

{EXIT_CODES_HELP}
"""

_DRAIN_HELP = f"""Have other pools take over what a pool holds, without a pause.

Returns when nothing is called there any more; the pool then holds nothing and may be stopped.
Stopping a pool with SIGTERM does the same by itself, within its grace period; this has no
such limit. Pieces that no other pool has the memory or the files for stay where they are.

Examples:

  expertmesh pool drain pool-1

  expertmesh pool drain pool-1 --undo

{EXIT_CODES_HELP}
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The expert pools of a running mesh.", no_args_is_help=True)
    group.command("list", help=help_text(_LIST_HELP))(list_pools)
    group.command("drain", help=help_text(_DRAIN_HELP))(drain)
    app.add_typer(group, name="pool")


@asks_router
def list_pools(router: DialledRouter, as_json: bool = JSON) -> None:
    answer = call(router.stub.GetTopology, router_pb2.GetTopologyRequest())
    rows = pool_rows(answer)
    version = answer.topology.version
    if as_json:
        print_json(
            {
                "epoch": version.epoch,
                "counter": version.counter,
                "uncovered_pieces": answer.topology.uncovered_pieces,
                "pools": rows,
            }
        )
        return
    table = Table(
        "pool", "address", "state", "pieces", "layers", "experts/s", "busy", "queued", box=None
    )
    for row in rows:
        pieces = str(row["pieces_served"])
        if row["pieces_held"] != row["pieces_served"]:
            pieces += f" of {row['pieces_held']} held"
        state = row["state"]
        if row["state"] == "loading":
            state = row["reason"] or f"loading, {100 * row['load_progress_ratio']:.0f} %"
        table.add_row(
            row["pool_id"], row["address"], state, pieces, str(row["layers_served"]),
            f"{row['experts_per_s']:,g}", f"{100 * row['busy_ratio']:.0f} %", str(row["queued_calls"]),
        )  # fmt: skip
    stdout().print(table)
    if answer.topology.uncovered_pieces:
        stdout().print(f"no ready pool holds {answer.topology.uncovered_pieces} pieces")


@asks_router
def drain(
    router: DialledRouter,
    pool_id: str = typer.Argument(..., help="As `expertmesh pool list` shows it."),
    undo: bool = typer.Option(False, "--undo", envvar="EXPERTMESH_UNDO", help="Use it again."),
    wait: bool = typer.Option(
        True, "--wait/--no-wait", envvar="EXPERTMESH_WAIT", help="Until it is empty."
    ),
    timeout: float = typer.Option(
        600.0,
        envvar="EXPERTMESH_DRAIN_TIMEOUT",
        help="Most seconds to wait; it goes on afterwards.",
    ),
    as_json: bool = JSON,
) -> None:
    deadline_s = time.monotonic() + timeout
    request = router_pb2.DrainPoolRequest(pool_id=pool_id, undo=undo)
    left = call(router.stub.DrainPool, request).held_pieces
    while wait and not undo and left:
        if time.monotonic() > deadline_s:
            raise CommandError(
                f"{pool_id} still holds {left} pieces after {timeout:.0f} s: is there a pool"
                " with memory and files for them? It goes on; --undo takes it back"
            )
        time.sleep(POLL_S)
        rows = pool_rows(call(router.stub.GetTopology, router_pb2.GetTopologyRequest()))
        left = sum(row["pieces_held"] for row in rows if row["pool_id"] == pool_id)
    if as_json:
        print_json({"pool_id": pool_id, "undo": undo, "held_pieces": left})
    elif undo:
        stdout().print(f"{pool_id} is used again", markup=False)
    else:
        what = "holds nothing and may be stopped" if not left else f"still holds {left} pieces"
        stdout().print(f"{pool_id} {what}", markup=False)
