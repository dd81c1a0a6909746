"""`expertmesh pool list` and `drain`: which pool holds what, and how is one emptied?"""

import time

import typer
from rich.table import Table

from expertmesh.clients.router import DialledRouter, asks_router, call, pool_rows
from expertmesh.console import EXIT_CODES_HELP, JSON, CommandError, help_text, print_json, stdout
from expertmesh.help_pages import CommandGroup
from expertmesh.progress import progress_note
from protos import router_pb2

POLL_S = 0.2

_LIST_HELP = f"""Show the expert pools: state, load, and how many pieces they hold.

A piece is one expert of one layer.

Examples:

  expertmesh pool list

  expertmesh pool list --json --router 10.77.0.1:50050

{EXIT_CODES_HELP}
"""

_DRAIN_HELP = f"""Move everything a pool holds to other pools, without interrupting requests.

Returns when the pool holds nothing and gets no more calls; it can then be stopped. A pool that gets
SIGTERM is drained too, but only within its grace period; this command has no such limit. Pieces
for which no other pool has the memory or the files stay where they are.

Examples:

  expertmesh pool drain pool-1

  expertmesh pool drain pool-1 --undo

{EXIT_CODES_HELP}
"""


def register(app: typer.Typer) -> None:
    group = CommandGroup(
        help="List and drain the expert pools of a running mesh.", no_args_is_help=True
    )
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
        loading = row["reason"] or f"loading, {100 * row['load_progress_ratio']:.0f} %"
        state = loading if row["state"] == "loading" else row["state"]
        table.add_row(
            row["pool_id"],
            row["address"],
            state,
            pieces,
            str(row["layers_served"]),
            f"{row['experts_per_s']:,g}",
            f"{100 * row['busy_ratio']:.0f} %",
            str(row["queued_calls"]),
        )
    stdout().print(table)
    if answer.topology.uncovered_pieces:
        stdout().print(f"{answer.topology.uncovered_pieces} pieces are in no ready pool")


@asks_router
def drain(
    router: DialledRouter,
    pool_id: str = typer.Argument(..., help="Its id, as `expertmesh pool list` shows it."),
    undo: bool = typer.Option(
        False, "--undo", envvar="EXPERTMESH_UNDO", help="Cancel the drain: use the pool again."
    ),
    wait: bool = typer.Option(
        True, "--wait/--no-wait", envvar="EXPERTMESH_WAIT", help="Wait until the pool is empty."
    ),
    timeout: float = typer.Option(
        600.0,
        envvar="EXPERTMESH_DRAIN_TIMEOUT",
        help="Seconds to wait; the drain goes on after that.",
    ),
    as_json: bool = JSON,
) -> None:
    deadline_s = time.monotonic() + timeout
    request = router_pb2.DrainPoolRequest(pool_id=pool_id, undo=undo)
    left = call(router.stub.DrainPool, request).held_pieces
    with progress_note(hidden=as_json) as say:
        while wait and not undo and left:
            if time.monotonic() > deadline_s:
                raise CommandError(
                    f"{pool_id} still holds {left} pieces after {timeout:.0f} s: does another pool "
                    "have the memory and the files for them? The drain goes on; --undo cancels it"
                )
            waits_s = deadline_s - time.monotonic()
            say(f"{pool_id} still holds {left} pieces; waiting for at most {waits_s:.0f} s more")
            time.sleep(POLL_S)
            rows = pool_rows(call(router.stub.GetTopology, router_pb2.GetTopologyRequest()))
            left = sum(row["pieces_held"] for row in rows if row["pool_id"] == pool_id)
    if as_json:
        print_json({"pool_id": pool_id, "undo": undo, "held_pieces": left})
    elif undo:
        stdout().print(f"{pool_id} is used again", markup=False)
    else:
        what = f"still holds {left} pieces" if left else "holds nothing and can be stopped"
        stdout().print(f"{pool_id} {what}", markup=False)
