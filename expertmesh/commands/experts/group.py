"""`expertmesh experts show` and `rebalance`: which experts are hot, and where should they be?"""

from pathlib import Path

import typer

from expertmesh.clients.router import DialledRouter, asks_router, call
from expertmesh.commands.experts.record import HELP, record, token_counts
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_USAGE,
    JSON,
    command_errors,
    help_text,
    print_json,
    stdout,
)
from expertmesh.forecasting.heat_map import heat_rows, imbalance, save_heat_map
from expertmesh.help_pages import CommandGroup
from protos import router_pb2

MOVES_SHOWN = 32

_SHOW_HELP = f"""Show how often each expert was activated, as a heat map with a line per layer.

A token activates several experts in each layer, and each of these activations is counted.

Examples:

  expertmesh experts show

  expertmesh experts show --png heat.png

{EXIT_CODES_HELP}
"""

_REBALANCE_HELP = f"""Place the experts again, by how much work each has caused recently.

The router does this by itself, slowly and only where it gains something (its flag --follow-load and
those after it). This command does all of it now. As few experts as possible move, and requests are
not interrupted. With --dry-run nothing moves: it only shows what would, and why.

Examples:

  expertmesh experts rebalance --dry-run

  expertmesh experts rebalance --router 10.77.0.1:50050 \\
    --tls-ca ca.pem --tls-cert cli.pem --tls-key cli-key.pem

{EXIT_CODES_HELP}
"""


def register(app: typer.Typer) -> None:
    group = CommandGroup(
        help="Show, record and rebalance which experts are used.", no_args_is_help=True
    )
    group.command("show", help=help_text(_SHOW_HELP))(show)
    group.command("record", help=HELP)(record)
    group.command("rebalance", help=help_text(_REBALANCE_HELP))(rebalance)
    app.add_typer(group, name="experts")


@asks_router
def show(
    router: DialledRouter,
    png: Path | None = typer.Option(
        None,
        "--png",
        "--plot",
        envvar="EXPERTMESH_PNG",
        help="Draw the heat map into this PNG instead (needs matplotlib).",
    ),
    as_json: bool = JSON,
) -> None:
    tokens = token_counts(router)
    if as_json:
        print_json({"tokens": tokens})
    elif not tokens:
        stdout().print("no token has been routed yet")
    if png is not None and tokens:
        with command_errors(EXIT_USAGE):
            save_heat_map(tokens, png)
    if as_json or png is not None:
        return
    for line, row in zip(heat_rows(tokens), tokens, strict=True):
        text = f"{line} {sum(row):>12,} activations, hottest {imbalance(row):.1f} x the mean"
        stdout().print(text, markup=False, soft_wrap=True)


@asks_router
def rebalance(
    router: DialledRouter,
    dry_run: bool = typer.Option(
        False, "--dry-run", envvar="EXPERTMESH_DRY_RUN", help="Only show what would move, and why."
    ),
    as_json: bool = JSON,
) -> None:
    answer = call(router.stub.Rebalance, router_pb2.RebalanceRequest(dry_run=dry_run))
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "moving_pieces": answer.moving_pieces,
                "imbalance_before": round(answer.imbalance_before, 4),
                "imbalance_after": round(answer.imbalance_after, 4),
                "last_decision": answer.last_decision,
                "moves": [
                    {
                        "layer": move.layer_idx,
                        "expert": move.expert_id,
                        "weight": round(move.weight, 3),
                        "loads_on": list(move.loads_on),
                        "leaves": list(move.leaves),
                    }
                    for move in answer.moves
                ],
            }
        )
        return
    lines = [move_text(move) for move in answer.moves[:MOVES_SHOWN]]
    if len(answer.moves) > MOVES_SHOWN:
        lines.append("and more (--json shows up to 256)")
    verb = "would move" if dry_run else "move"
    lines.append(
        f"{answer.moving_pieces} experts {verb}: the busiest pool has {answer.imbalance_before:.2f}"
        f" x the mean load before, {answer.imbalance_after:.2f} x after"
        if answer.moves
        else "nothing moves, because nothing would be gained (the busiest pool has "
        f"{answer.imbalance_before:.2f} x the mean load)"
    )
    lines.append(f"the router's own last decision: {answer.last_decision}")
    for line in lines:
        stdout().print(line, markup=False, soft_wrap=True)


def move_text(move: router_pb2.PieceMove) -> str:
    """How one expert moves, in words, with its load."""
    if move.loads_on and move.leaves:
        what = f"from {', '.join(move.leaves)} to {', '.join(move.loads_on)}"
    elif move.loads_on:
        what = f"also on {', '.join(move.loads_on)}"
    else:
        what = f"no longer on {', '.join(move.leaves)}"
    return f"layer {move.layer_idx} expert {move.expert_id} ({move.weight:.1f} x the mean): {what}"
