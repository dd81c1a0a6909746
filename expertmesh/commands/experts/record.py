"""`expertmesh experts record`: which experts do tokens choose? For `expertmesh bench replay`."""

import contextlib
import json
import time
from pathlib import Path

import grpc
import typer

from expertmesh.clients.router import DialledRouter, asks_router, call
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_USAGE,
    CommandError,
    help_text,
    stderr,
    stdout,
)
from expertmesh.loadgen.routing_file import SUFFIX, write_routing
from protos import attention_pb2, attention_pb2_grpc, router_pb2
from rpc.channel import Access, open_sync_channel

HELP = help_text(f"""Record which experts tokens choose, for `expertmesh bench replay`.

Writes JSON with the number of tokens for each expert, over all attention services, as the router
counts them. With --exact it writes a {SUFFIX} file with the experts of each row of each
step of one attention service.

Examples:

  expertmesh experts record --out load.json --seconds 60

  expertmesh experts record --exact --out load{SUFFIX} --seconds 60

{EXIT_CODES_HELP}
""")


@asks_router
def record(
    router: DialledRouter,
    out: Path = typer.Option(
        ...,
        envvar="EXPERTMESH_RECORD_OUT",
        help=f"File to write; with --exact its name ends in {SUFFIX}.",
    ),
    seconds: float = typer.Option(
        60.0, envvar="EXPERTMESH_SECONDS", min=0.1, max=86_400, help="How long to record."
    ),
    exact: bool = typer.Option(
        False, "--exact", envvar="EXPERTMESH_EXACT", help="Record each step, not only counts."
    ),
    attention: str = typer.Option(
        "",
        envvar="EXPERTMESH_RECORD_ATTENTION",
        help="With --exact: id of the attention service to record. Default: the first.",
    ),
    max_mib: int = typer.Option(
        64, envvar="EXPERTMESH_MAX_MIB", min=1, max=1000, help="With --exact: stop at this size."
    ),
) -> None:
    if exact != (out.suffix == SUFFIX):
        raise CommandError(
            f"--out {out}: the name ends in {SUFFIX} with --exact, and only then", EXIT_USAGE
        )
    stderr().print(f"recording for {seconds:g} s", markup=False)
    try:
        if exact:
            done = _record_steps(router, out, attention, seconds, max_mib * 2**20)
        else:
            done = _record_counts(router, out, seconds)
    except OSError as error:
        raise CommandError(f"--out {out}: {error.strerror}") from None
    stdout().print(f"{out}: {done}", markup=False, soft_wrap=True)


def token_counts(router: DialledRouter) -> list[list[int]]:
    """Activations as [layer][expert]; empty before any token was routed."""
    answer = call(router.stub.GetExpertLoad, router_pb2.GetExpertLoadRequest())
    width, counts = answer.num_experts, list(answer.token_counts)
    return [counts[at : at + width] for at in range(0, len(counts), max(1, width))]


def _record_counts(router: DialledRouter, out: Path, seconds: float) -> str:
    before = token_counts(router)
    time.sleep(seconds)
    after = token_counts(router)
    if before and len(before) != len(after):
        raise CommandError("the served model changed during the recording: nothing was written")
    was = before or [[0] * len(row) for row in after]
    tokens = [
        [now - then for now, then in zip(row, old, strict=True)]
        for row, old in zip(after, was, strict=True)
    ]
    if any(count < 0 for row in tokens for count in row):
        raise CommandError("the router restarted during the recording: nothing was written")
    activations = sum(map(sum, tokens))
    if not activations:
        raise CommandError(f"no token was routed within {seconds:g} s: nothing was written")
    out.write_text(json.dumps({"seconds": seconds, "tokens": tokens}))
    return f"{activations:,} activations of experts"


def _record_steps(
    router: DialledRouter,
    out: Path,
    attention_id: str,
    seconds: float,
    max_bytes: int,
) -> str:
    topology = call(router.stub.GetTopology, router_pb2.GetTopologyRequest()).topology
    addresses = {entry.attention_id: entry.address for entry in topology.attentions}
    if not addresses or (attention_id and attention_id not in addresses):
        known = ", ".join(addresses) or "none"
        raise CommandError(
            f"--attention: no such attention service {attention_id!r}; there are: {known}",
            EXIT_USAGE,
        )
    address = addresses[attention_id or min(addresses)]
    steps = _steps(address, router.access, seconds, max_bytes)
    if not steps:
        raise CommandError(f"{address} ran no step within {seconds:g} s: nothing was written")
    try:
        write_routing(
            out, steps, num_layers=topology.num_layers, checkpoint_id=topology.checkpoint_id
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    lost = sum(step.lost_steps for step in steps)
    rows = sum(step.num_rows for step in steps)
    return f"{len(steps):,} steps, {rows:,} rows" + (f"; {lost:,} steps were lost" if lost else "")


def _steps(
    address: str, access: Access | None, seconds: float, max_bytes: int
) -> list[attention_pb2.RecordRoutingResponse]:
    """The steps of `seconds`, or until they have `max_bytes`. Raises CommandError."""
    steps: list[attention_pb2.RecordRoutingResponse] = []
    size_bytes = 0
    with contextlib.closing(
        open_sync_channel(address, tls=access, server_role="attention")
    ) as dialled:
        stub = attention_pb2_grpc.AttentionStub(dialled)
        answers = stub.RecordRouting(attention_pb2.RecordRoutingRequest(), timeout=seconds)
        try:
            for step in answers:
                size_bytes += len(step.expert_ids)
                if size_bytes > max_bytes:
                    answers.cancel()
                    break
                steps.append(step)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise CommandError(f"attention service {address}: {error.details()}") from None
    return steps
