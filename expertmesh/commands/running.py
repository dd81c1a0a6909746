"""`expertmesh down` and `status`: what runs on this machine, and how it ends."""

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
from expertmesh.cluster.process import readiness_text
from expertmesh.cluster.state import RunDir, find_run_dir, is_alive
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_NOT_RUNNING,
    CommandError,
    fail,
    help_text,
    print_json,
    stdout,
)
from protos import router_pb2

MIN_STOP_S = 60.0


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_DOWN_HELP))(down)
    app.command(help=help_text(_STATUS_HELP))(status)


_DOWN_HELP = f"""Stop the cluster that runs, started with or without --detach.

Examples:

  expertmesh down

  expertmesh down --run-dir ~/.local/state/expertmesh/cluster-8501   (of several)

{EXIT_CODES_HELP} Nothing to stop is 3.
"""


def down(
    run_dir: Path | None = RUN_DIR,
    timeout: float | None = typer.Option(
        None,
        envvar="EXPERTMESH_DOWN_TIMEOUT",
        help="Seconds to wait before killing it. Default: what its services were given to end, and "
        f"at least {MIN_STOP_S:.0f}.",
    ),
) -> None:
    folder = find_run_dir(run_dir)
    state = folder.read()
    if state is None:
        raise CommandError(f"no cluster runs from {folder.path}", EXIT_NOT_RUNNING)
    if not folder.supervisor_alive(state):
        leftovers = end_leftovers(state)
        folder.remove_state()
        ended = f"; ended what it had left: {', '.join(leftovers)}" if leftovers else ""
        fail(
            f"no cluster runs from {folder.path}: the state of pid {state.get('pid')} was stale "
            f"and is removed{ended}",
            EXIT_NOT_RUNNING,
        )
    if timeout is None:
        timeout = max(MIN_STOP_S, state.get("stop_s", 0.0) + MIN_STOP_S / 2)
    if not stop_running(folder, state, timeout):
        fail(f"pid {state['pid']} did not stop within {timeout:.0f} s and was killed")
    stdout().print(f"stopped ({state.get('url') or folder.path})", markup=False)


_STATUS_HELP = f"""Show what runs: phase, services, addresses, readiness, and who reaches which pool.

With --router it is the mesh of that router, on whatever machines: only who reaches which pool,
as each attention service says. A time is the network's share of a call's round trip.

A cluster whose services stand in for each other (`up --replicas 2`, `--attention 2`) serves on
when one of them dies. It is then degraded: what is missing is said, and when it is started again.
JSON has the same as `missing`, and whether requests are taken as `serving`.

Examples:

  expertmesh status

  expertmesh status --json | python -m json.tool

  expertmesh status --router 10.77.0.1:50050 --tls-ca ca.pem --tls-cert cli.pem --tls-key cli-key.pem

{EXIT_CODES_HELP} 0 means that every service is ready (and with --router: every pool in reach).
"""


def status(
    run_dir: Path | None = RUN_DIR,
    as_json: bool = typer.Option(False, "--json", envvar="EXPERTMESH_JSON", help="For scripts."),
    router: str = typer.Option("", envvar="EXPERTMESH_ROUTER", help="HOST:PORT of a router."),
    tls_ca: Path | None = TLS_CA,
    tls_cert: Path | None = TLS_CERT,
    tls_key: Path | None = TLS_KEY,
    secret_file: Path | None = SECRET_FILE,
) -> None:
    if router:
        flags = (router, run_dir, tls_ca, tls_cert, tls_key, secret_file)
        with dialled_router(*flags) as dialled:
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
    """The state file with what is true now: phase, and each service's readiness."""
    state = folder.read()
    if state is None:
        nothing: dict[str, Any] = {"services": [], "missing": [], "serving": False, "reach": []}
        return {"phase": "not running", "run_dir": str(folder.path), **nothing}
    alive = folder.supervisor_alive(state)
    phase = state.get("phase", "unknown")
    if not alive and phase != "failed":
        phase = "stale"
    services = []
    with httpx.Client(trust_env=False, timeout=1.0) as client:
        for service in state.get("services", []):
            running, ready, detail = _service_state(service, client)
            services.append({**service, "running": running, "ready": ready, "detail": detail})
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


def _service_state(service: dict[str, Any], client: httpx.Client) -> tuple[bool, bool, str]:
    """(whether its process runs, whether it is ready, what it does)."""
    if not is_alive(service.get("pid"), service.get("started_at")):
        return False, False, service.get("last_death") or "gone"
    where = service.get("ops") or service.get("http")
    if where is None:
        return True, False, "starting"
    try:
        answer = client.get(f"http://{where}/readyz")
    except httpx.HTTPError:
        return True, False, "does not answer"
    return True, answer.status_code == 200, readiness_text(answer)


def _missing(service: dict[str, Any]) -> str:
    """What one service that is not ready lacks, and how it comes back."""
    name, log = service["name"], service.get("log")
    if not service.get("away"):
        return f"{name} is not ready: {service['detail']}; its log: {log}"
    deaths = service["deaths"]
    text = f"{name} {service['last_death']}" + (f" (death {deaths})" if deaths > 1 else "")
    if service["running"]:
        return f"{text}; it was started again: {service['detail']}; its log: {log}"
    wait_s = max(0.0, (service.get("next_start_at") or 0.0) - time.time())
    return f"{text}; it is started again in {wait_s:.0f} s; its log: {log}"


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
        served = "requests are served meanwhile" if report["serving"] else "no request is served"
        out.print(f"{served}; if it keeps dying: `expertmesh down`, and `up` again")
    _print_reach(report["reach"])


def _print_reach(rows: list[dict[str, Any]]) -> None:
    table = reach_table(rows)
    if table is not None:
        stdout().print(table)
    for line in problems(rows):
        stdout().print(line, markup=False, soft_wrap=True)
