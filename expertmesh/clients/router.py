"""How do the commands reach the router, and how do they read its answers?"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import grpc
import typer

from expertmesh.clients.unanswered import why_unanswered
from expertmesh.cluster.state import FIND_HELP, RunDir, find_run_dir
from expertmesh.console import EXIT_NOT_RUNNING, EXIT_USAGE, CommandError, command_errors
from protos import pieces_pb2, router_pb2, router_pb2_grpc
from rpc.access.secret import MeshSecret
from rpc.access.tls import TlsFiles, tls_files
from rpc.channel import Access, open_sync_channel
from rpc.config import Address
from rpc.mesh.pieces import Pieces

TIMEOUT_S = 10.0
Answer = TypeVar("Answer")

ROUTER = typer.Option(
    "", envvar="EXPERTMESH_ROUTER", help="HOST:PORT of the router. Default: the local cluster's."
)
RUN_DIR = typer.Option(None, "--run-dir", envvar="EXPERTMESH_RUN_DIR", help=FIND_HELP)
API_KEY_FILE = typer.Option(
    None, envvar="EXPERTMESH_API_KEY_FILE", help="File with API keys; the first one is used."
)
TLS_CA = typer.Option(None, envvar="EXPERTMESH_TLS_CA", help="PEM file of the mesh's CA.")
TLS_CERT = typer.Option(None, envvar="EXPERTMESH_TLS_CERT", help="PEM certificate with role cli.")
TLS_KEY = typer.Option(None, envvar="EXPERTMESH_TLS_KEY", help="PEM key of the certificate.")
SECRET_FILE = typer.Option(
    None,
    envvar="EXPERTMESH_SECRET_FILE",
    help="Without TLS: file with the mesh's secret. Default: the local cluster's.",
)

_FLAGS = {
    "router": (str, ROUTER),
    "run_dir": (Path | None, RUN_DIR),
    "tls_ca": (Path | None, TLS_CA),
    "tls_cert": (Path | None, TLS_CERT),
    "tls_key": (Path | None, TLS_KEY),
    "secret_file": (Path | None, SECRET_FILE),
}
"""Flags of every command that asks the router: name -> (type, option)."""

STATES = {
    router_pb2.MEMBER_STATE_UNSPECIFIED: "unknown",
    router_pb2.MEMBER_STATE_LOADING: "loading",
    router_pb2.MEMBER_STATE_READY: "ready",
    router_pb2.MEMBER_STATE_DRAINING: "draining",
}


@dataclass(frozen=True, kw_only=True)
class DialledRouter:
    """A router to ask, and the credentials for the other services of its mesh."""

    stub: router_pb2_grpc.RouterStub
    address: str
    access: Access | None


@contextmanager
def dialled_router(
    router: str,
    run_dir: Path | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    secret_file: Path | None,
) -> Iterator[DialledRouter]:
    """Connect to the router; gRPC errors inside become CommandErrors. Raises CommandError."""
    address = _router_address(router, run_dir)
    access = _mesh_access(router, run_dir, tls_ca, tls_cert, tls_key, secret_file)
    with command_errors(EXIT_USAGE):
        Address.parse(address, "--router")
        channel = open_sync_channel(address, tls=access, server_role="router")
    with channel:
        try:
            stub = router_pb2_grpc.RouterStub(channel)
            yield DialledRouter(stub=stub, address=address, access=access)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                why = why_unanswered(address, "router", with_tls=isinstance(access, TlsFiles))
                raise CommandError(why, EXIT_NOT_RUNNING) from None
            raise CommandError(f"router {address}: {error.details()}") from None


def _mesh_access(
    router: str,
    run_dir: Path | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    secret_file: Path | None,
) -> Access | None:
    """The credentials that the flags name, else the local cluster's secret. Raises CommandError."""
    with command_errors(EXIT_USAGE):
        tls = tls_files(tls_ca, tls_cert, tls_key)
        if tls is not None and secret_file is not None:
            raise ValueError("--secret-file: give either this or the --tls-* flags")
        if tls is not None:
            return tls
        if secret_file is not None:
            return MeshSecret(secret_file)
        return _local_access(router, run_dir)


def _local_access(router: str, run_dir: Path | None) -> MeshSecret | None:
    """The secret of the local cluster, if it is the one to ask."""
    try:
        folder = find_run_dir(run_dir)
    except CommandError:  # several run, but a named router need not belong to one of them
        if not router:
            raise
        return None
    return local_secret(folder) if router in ("", _local_router(folder)) else None


def local_secret(folder: RunDir) -> MeshSecret | None:
    """The secret of a run folder's cluster; None if it has none. Raises ValueError."""
    return MeshSecret(folder.secret_path) if folder.secret_path.exists() else None


def asks_router(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first parameter is the router, the flags that say where it is."""
    own = list(inspect.signature(command).parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=option)
        for name, (kind, option) in _FLAGS.items()
    ]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + added

    @wraps(command)
    def run(**given: Any) -> None:
        flags = {name: given.pop(name) for name in _FLAGS}
        with dialled_router(**flags) as router:
            command(router, **given)

    # Typer reads flags from the signature and their types from the annotations.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def call(method: Callable[..., Answer], request: Any) -> Answer:
    """Call the router with a deadline, which leaves time for a router that is just starting."""
    return method(request, timeout=TIMEOUT_S)


def pool_rows(answer: router_pb2.GetTopologyResponse) -> list[dict[str, Any]]:
    """A row for each pool, in the order of the topology; names with units."""
    topology = answer.topology
    reports = {
        report.member_id: report
        for report in answer.members
        if report.role == router_pb2.MEMBER_ROLE_POOL
    }
    return [
        _row(entry, reports.get(entry.pool_id, router_pb2.MemberReport()), topology)
        for entry in topology.pools
    ]


def _row(
    entry: router_pb2.PoolEntry, report: router_pb2.MemberReport, topology: router_pb2.Topology
) -> dict[str, Any]:
    def read(message: pieces_pb2.PieceSet) -> Pieces:
        if not topology.num_layers:
            return Pieces()
        return Pieces.from_message(
            message, num_layers=topology.num_layers, num_experts=topology.num_experts
        )

    shown, held = read(entry.pieces), read(report.status.ready)
    return {
        "pool_id": entry.pool_id,
        "address": entry.address,
        "state": STATES.get(entry.state, "unknown"),
        "reason": report.unready_reason,
        "numerics_id": entry.numerics_id,
        "pieces_served": len(shown),
        "pieces_held": len(held),
        "layers_served": len(shown.layers),
        "experts_per_s": float(f"{report.experts_per_s:.4g}"),
        "busy_ratio": round(report.status.busy_ratio, 3),
        "queued_calls": report.status.queued,
        "load_progress_ratio": round(report.status.load_progress_ratio, 3),
        "silent_ms": report.silent_ms,
    }


def _router_address(router: str, run_dir: Path | None) -> str:
    """The given address, else the local cluster's router's. Raises CommandError."""
    if router:
        return router
    folder = find_run_dir(run_dir)
    if address := _local_router(folder):
        return address
    raise CommandError(
        f"no router is running from {folder.path}; give --router HOST:PORT", EXIT_NOT_RUNNING
    )


def _local_router(folder: RunDir) -> str:
    """The address of a run folder's router; empty if it has none."""
    services = (folder.read() or {}).get("services", [])
    found = (one.get("grpc") for one in services if one.get("name") == "router")
    return str(next(found, None) or "")
