"""`expertmesh status` and `down`: what runs on this machine, and how is it stopped?"""

import time
from pathlib import Path
from typing import Any

import httpx
import typer
from rich.table import Table

from expertmesh.clients.reach import problems, reach_report, reach_table
from expertmesh.clients.router import (
    RUN_DIR,
    SECRET_FILE,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    call,
    dialled_router,
    local_secret,
)
from expertmesh.cluster.detach import end_leftovers, stop_running
from expertmesh.cluster.process import ask_readiness
from expertmesh.cluster.state import RunDir, find_run_dir, is_alive
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_NOT_RUNNING,
    JSON,
    CommandError,
    help_text,
    print_json,
    stdout,
)
from expertmesh.progress import progress_note
from protos import router_pb2

MIN_STOP_S = 60.0


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_DOWN_HELP))(down)
    app.command(help=help_text(_STATUS_HELP))(status)


_DOWN_HELP = f"""Stop the running cluster, started with or without --detach.

Examples:

  expertmesh down

  expertmesh down --run-dir ~/.local/state/expertmesh/cluster-8501

{EXIT_CODES_HELP} 3 also means that there was nothing to stop.
"""


def down(
    run_dir: Path | None = RUN_DIR,
    timeout: float | None = typer.Option(
        None,
        envvar="EXPERTMESH_DOWN_TIMEOUT",
        help="Seconds to wait before killing it. Default: the time its services may take to stop, "
        f"at least {MIN_STOP_S:.0f}.",
    ),
) -> None:
    folder = find_run_dir(run_dir)
    state = folder.read()
    if state is None:
        raise CommandError(f"no cluster is running from {folder.path}", EXIT_NOT_RUNNING)
    if not folder.supervisor_alive(state):
        leftovers = end_leftovers(state)
        folder.remove_state()
        ended = f"; killed the services it had left: {', '.join(leftovers)}" if leftovers else ""
        raise CommandError(
            f"no cluster is running from {folder.path}: removed the stale state of pid "
            f"{state.get('pid')}{ended}",
            EXIT_NOT_RUNNING,
        )
    if timeout is None:
        timeout = max(MIN_STOP_S, state.get("stop_s", 0.0) + MIN_STOP_S / 2)
    with progress_note(hidden=False) as say:
        stopped = stop_running(folder, state, timeout, say)
    if not stopped:
        raise CommandError(f"pid {state['pid']} did not stop within {timeout:.0f} s: killed it")
    stdout().print(f"stopped ({state.get('url') or folder.path})", markup=False)


_STATUS_HELP = f"""Show the cluster: phase, services, addresses, readiness, reachable pools.

With --router it asks the mesh of that router, on any machines, and shows only which attention
service reaches which pool. The times are the network's share of a call's round trip.

A cluster with spare services (`up --replicas 2`, `--attention 2`) keeps serving when one of them
dies. Its phase is then `degraded`, and the output says what is missing and when it is started
again. In JSON these lines are `missing`, and `serving` says whether requests are accepted.

Examples:

  expertmesh status

  expertmesh status --json | python -m json.tool

  expertmesh status --router 10.77.0.1:50050 \\
    --tls-ca ca.pem --tls-cert cli.pem --tls-key cli-key.pem

{EXIT_CODES_HELP} 0 means that every service is ready (with --router: that every pool is reachable).
"""


def status(
    run_dir: Path | None = RUN_DIR,
    as_json: bool = JSON,
    router: str = typer.Option(
        "", envvar="EXPERTMESH_ROUTER", help="HOST:PORT of a router to ask."
    ),
    tls_ca: Path | None = TLS_CA,
    tls_cert: Path | None = TLS_CERT,
    tls_key: Path | None = TLS_KEY,
    secret_file: Path | None = SECRET_FILE,
) -> None:
    if router:
        with dialled_router(router, run_dir, tls_ca, tls_cert, tls_key, secret_file) as dialled:
            topology = call(dialled.stub.GetTopology, router_pb2.GetTopologyRequest()).topology
        rows = reach_report([entry.address for entry in topology.attentions], dialled.access)
        if as_json:
            print_json({"reach": rows})
        else:
            _print_reach(rows)
        if problems(rows):
            raise typer.Exit(EXIT_NOT_RUNNING)
        return
    report = cluster_report(find_run_dir(run_dir))
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if report["phase"] != "ready" or not all(one["ready"] for one in report["services"]):
        raise typer.Exit(EXIT_NOT_RUNNING)


def cluster_report(folder: RunDir) -> dict[str, Any]:
    """The state file, brought up to date: the phase, and each service's readiness."""
    state = folder.read()
    if state is None:
        nothing: dict[str, Any] = {"services": [], "missing": [], "serving": False, "reach": []}
        return {"phase": "not running", "run_dir": str(folder.path), **nothing}
    alive = folder.supervisor_alive(state)
    phase = state.get("phase", "unknown")
    if not alive and phase != "failed":
        phase = "stale"
    with httpx.Client(trust_env=False) as client:
        services = [{**one, **_service_state(one, client)} for one in state.get("services", [])]
    if alive and phase in ("ready", "degraded"):
        phase = "ready" if all(one["ready"] for one in services) else "degraded"
    attention = [
        service["grpc"]
        for service in services
        if service["name"].startswith("attention") and service.get("grpc") and service["running"]
    ]
    return {
        **state,
        "phase": phase,
        "run_dir": str(folder.path),
        "services": services,
        "serving": any(one["ready"] for one in services if one.get("http")),
        "missing": [_missing(one) for one in services if not one["ready"]]
        if phase == "degraded"
        else [],
        "reach": reach_report(attention, local_secret(folder)),
    }


def _service_state(service: dict[str, Any], client: httpx.Client) -> dict[str, Any]:
    """Whether its process runs, whether it is ready, and what it is doing."""
    running = is_alive(service.get("pid"), service.get("started_at"))
    if not running:
        ready, detail = False, service.get("last_death") or "gone"
    else:
        where = service.get("ops") or service.get("http")
        ready, detail = ask_readiness(where, client, "does not answer")
    return {"running": running, "ready": ready, "detail": detail}


def _missing(service: dict[str, Any]) -> str:
    """Why a service is not ready, and when it comes back."""
    name, log = service["name"], service.get("log")
    if not service.get("away"):
        return f"{name} is not ready: {service['detail']}; its log: {log}"
    deaths = service["deaths"]
    text = f"{name} {service['last_death']}" + (f" (death {deaths})" if deaths > 1 else "")
    if service["running"]:
        return f"{text}; started again: {service['detail']}; its log: {log}"
    wait_s = max(0.0, (service.get("next_start_at") or 0.0) - time.time())
    return f"{text}; it will be started again in {wait_s:.0f} s; its log: {log}"


def _print_report(report: dict[str, Any]) -> None:
    out = stdout()
    out.print(f"{report['phase']}  {report.get('url') or ''}  ({report['run_dir']})", markup=False)
    if report.get("error"):
        out.print(report["error"], markup=False, soft_wrap=True)
    if not report["services"]:
        return
    table = Table("service", "pid", "state", "address", box=None)
    for one in report["services"]:
        address = one.get("http") or one.get("grpc") or ""
        table.add_row(one["name"], str(one["pid"]), one["detail"], address)
    out.print(table)
    for line in report["missing"]:
        out.print(f"missing: {line}", markup=False, soft_wrap=True)
    if report["missing"]:
        served = "requests are still served" if report["serving"] else "no requests are served"
        out.print(f"{served}; if this does not pass, run `expertmesh down` and `up` again")
    _print_reach(report["reach"])


def _print_reach(rows: list[dict[str, Any]]) -> None:
    table = reach_table(rows)
    if table is not None:
        stdout().print(table)
    for line in problems(rows):
        stdout().print(line, markup=False, soft_wrap=True)
