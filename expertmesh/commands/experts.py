"""`expertmesh experts show`, `record`, `rebalance`: which experts are hot, and placing by it."""

import json
import time
from pathlib import Path

import typer

from expertmesh.console import EXIT_CODES_HELP, CommandError, help_text, print_json, stdout
from expertmesh.heat_map import heat_rows, imbalance
from expertmesh.router_client import (
    ROUTER,
    RUN_DIR,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    call,
    router_stub,
)
from protos import router_pb2, router_pb2_grpc

JSON = typer.Option(False, "--json", envvar="EXPERTMESH_JSON", help="For scripts.")

_SHOW_HELP = f"""Show how many tokens went to each expert: a heat map, a line for each layer.

{EXIT_CODES_HELP}
"""

_RECORD_HELP = f"""Write the tokens that go to each expert within some seconds to a JSON file.

{EXIT_CODES_HELP}
"""

_REBALANCE_HELP = f"""Place the experts anew by how often they have been activated.

Moves as little as that allows, and as every change without a pause. The router also takes these
counts into account by itself whenever pools come or go.

{EXIT_CODES_HELP}
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Which experts are hot.", no_args_is_help=True)
    group.command("show", help=help_text(_SHOW_HELP))(show)
    group.command("record", help=help_text(_RECORD_HELP))(record)
    group.command("rebalance", help=help_text(_REBALANCE_HELP))(rebalance)
    app.add_typer(group, name="experts")


def show(
    router: str = ROUTER,
    run_dir: Path | None = RUN_DIR,
    tls_ca: Path | None = TLS_CA,
    tls_cert: Path | None = TLS_CERT,
    tls_key: Path | None = TLS_KEY,
    as_json: bool = JSON,
) -> None:
    with router_stub(router, run_dir, tls_ca, tls_cert, tls_key) as stub:
        tokens = token_counts(stub)
    if as_json:
        print_json({"tokens": tokens})
        return
    if not tokens:
        stdout().print("no token has been routed yet")
        return
    for line, row in zip(heat_rows(tokens), tokens, strict=True):
        text = f"{line} {sum(row):>12,} tokens, hottest {imbalance(row):.1f} x the mean"
        stdout().print(text, markup=False, soft_wrap=True)


def record(
    out: Path = typer.Option(..., envvar="EXPERTMESH_OUT", help="File to write."),
    seconds: float = typer.Option(
        60.0, envvar="EXPERTMESH_SECONDS", min=0.1, max=86_400, help="How long."
    ),
    router: str = ROUTER,
    run_dir: Path | None = RUN_DIR,
    tls_ca: Path | None = TLS_CA,
    tls_cert: Path | None = TLS_CERT,
    tls_key: Path | None = TLS_KEY,
) -> None:
    with router_stub(router, run_dir, tls_ca, tls_cert, tls_key) as stub:
        before = token_counts(stub)
        time.sleep(seconds)
        after = token_counts(stub)
    if before and len(before) != len(after):
        raise CommandError("another model is served than when the recording began")
    was = before or [[0] * len(row) for row in after]
    tokens = [
        [now - then for now, then in zip(row, old, strict=True)]
        for row, old in zip(after, was, strict=True)
    ]
    if any(count < 0 for row in tokens for count in row):
        raise CommandError("the router restarted during the recording")
    try:
        out.write_text(json.dumps({"seconds": seconds, "tokens": tokens}))
    except OSError as error:
        raise CommandError(f"--out {out}: {error.strerror}") from None
    stdout().print(f"{out}: {sum(map(sum, tokens)):,} routed tokens", markup=False)


def rebalance(
    router: str = ROUTER,
    run_dir: Path | None = RUN_DIR,
    tls_ca: Path | None = TLS_CA,
    tls_cert: Path | None = TLS_CERT,
    tls_key: Path | None = TLS_KEY,
    as_json: bool = JSON,
) -> None:
    with router_stub(router, run_dir, tls_ca, tls_cert, tls_key) as stub:
        moving = call(stub.Rebalance, router_pb2.RebalanceRequest()).moving_pieces
    if as_json:
        print_json({"moving_pieces": moving})
    else:
        stdout().print(f"{moving} experts move" if moving else "nothing to gain: nothing moves")


def token_counts(stub: router_pb2_grpc.RouterStub) -> list[list[int]]:
    """[layer][expert]; empty before any token was routed."""
    answer = call(stub.GetExpertLoad, router_pb2.GetExpertLoadRequest())
    width, counts = answer.num_experts, list(answer.token_counts)
    return [counts[at : at + width] for at in range(0, len(counts), max(1, width))]
