"""`expertmesh up`, `down`, `status`: the whole system on this machine."""

from pathlib import Path
from typing import Any

import httpx
import typer
from rich.table import Table

from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_NOT_RUNNING,
    CommandError,
    fail,
    help_text,
    print_json,
    stderr,
    stdout,
)
from expertmesh.detach import end_leftovers, start_detached, stop_running
from expertmesh.machine import available_memory_bytes, usable_cores
from expertmesh.plan import DEMO_NAME, ClusterOptions, demo_model_dir, plan_cluster
from expertmesh.preflight import check_memory, check_port
from expertmesh.process import readiness_text
from expertmesh.sizes import format_bytes
from expertmesh.spec import ClusterPlan
from expertmesh.state import RunDir, default_run_dir, is_alive
from expertmesh.supervise import greet, supervise

RUN_DIR = typer.Option(
    None,
    "--run-dir",
    envvar="EXPERTMESH_RUN_DIR",
    help="Folder for logs and state; one cluster each. Default: "
    "$XDG_STATE_HOME/expertmesh/cluster.",
)


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_UP_HELP))(up)
    app.command(help=help_text(_DOWN_HELP))(down)
    app.command(help=help_text(_STATUS_HELP))(status)


_UP_HELP = f"""Start the whole system on 127.0.0.1: router, expert pools, attention, gateway.

Each service is a process of its own; the order is router, pools and attention, gateway, and
each waits until those before it are ready. Ctrl-C stops them in reverse order.

Examples:

  expertmesh up

  expertmesh up --pools 4 --http-port 9000

  expertmesh up --model ~/models/my-m2 --dtype bfloat16 --detach

  expertmesh up --in-process   (no pools: experts inside the attention process)

{EXIT_CODES_HELP}
"""


def up(
    http_port: int = typer.Option(
        8000,
        envvar="EXPERTMESH_HTTP_PORT",
        help="Port of the HTTP API on 127.0.0.1; 0 takes a free one.",
    ),
    pools: int = typer.Option(
        2, envvar="EXPERTMESH_POOLS", help="Expert pools; pool i of N holds the layers l mod N = i."
    ),
    model: Path | None = typer.Option(
        None,
        envvar="EXPERTMESH_MODEL",
        help="Checkpoint folder. Default: the bundled demonstration model.",
    ),
    in_process: bool = typer.Option(
        False,
        "--in-process",
        envvar="EXPERTMESH_IN_PROCESS",
        help="One attention process with all experts in it, no pools and no router.",
    ),
    detach: bool = typer.Option(
        False,
        "--detach",
        envvar="EXPERTMESH_DETACH",
        help="Return when ready and keep running; stop with `expertmesh down`.",
    ),
    dtype: str = typer.Option(
        "auto", envvar="EXPERTMESH_DTYPE", help="Compute dtype: auto, float32 or bfloat16."
    ),
    kv_memory: str = typer.Option(
        "512MiB", envvar="EXPERTMESH_KV_MEMORY", help="Memory of the KV cache, for example 2GiB."
    ),
    threads: int | None = typer.Option(
        None,
        envvar="EXPERTMESH_THREADS",
        help="Threads of every computing process. Default: the cores divided among them.",
    ),
    served_model_name: str | None = typer.Option(
        None,
        envvar="EXPERTMESH_SERVED_MODEL_NAME",
        help="The model's name in the API. Default: the folder's name.",
    ),
    ask: str | None = typer.Option(
        None, envvar="EXPERTMESH_ASK", help="A question to ask once when ready."
    ),
    start_timeout: float = typer.Option(
        900.0, envvar="EXPERTMESH_START_TIMEOUT", help="Give up after this many seconds."
    ),
    log_level: str = typer.Option(
        "info", envvar="EXPERTMESH_LOG_LEVEL", help="Level of the services' logs."
    ),
    run_dir: Path | None = RUN_DIR,
    background: bool = typer.Option(False, "--background", hidden=True),
) -> None:
    options = ClusterOptions(
        model=(model or demo_model_dir()).absolute(),
        http_port=http_port,
        num_pools=pools,
        in_process=in_process,
        dtype=dtype,
        kv_memory=kv_memory,
        threads=threads,
        log_level=log_level,
        served_model_name=served_model_name or (None if model else DEMO_NAME),
    )
    plan = plan_cluster(options, usable_cores())
    folder = RunDir((run_dir or default_run_dir()).absolute())
    notes, out = stderr(), stdout()
    if not detach:
        _print_plan(plan, notes)
    check_memory(plan, available_memory_bytes())
    with folder.lock():
        check_port(http_port)
    if detach:
        state = start_detached(
            folder,
            _arguments(options, start_timeout, folder),
            lambda line: notes.print(line, markup=False, soft_wrap=True),
        )
        greet(state["url"], folder, ask, out, notes)
        return
    code = supervise(
        plan,
        folder,
        greeting=not background,
        ask=ask,
        start_timeout_s=start_timeout,
        out=out,
        notes=notes,
    )
    raise typer.Exit(code)


def _print_plan(plan: ClusterPlan, notes: Any) -> None:
    notes.print(f"{plan.model}: {plan.description}", markup=False, soft_wrap=True)
    for line in plan.memory_lines:
        notes.print(f"  {line}", markup=False, soft_wrap=True)
    notes.print(
        f"memory needed: {format_bytes(plan.memory_bytes)} of "
        f"{format_bytes(available_memory_bytes())} free"
    )


def _arguments(options: ClusterOptions, start_timeout_s: float, folder: RunDir) -> list[str]:
    """The flags of the `up` that runs in the background (the greeting stays in front)."""
    arguments = [
        "--background",
        "--model",
        str(options.model),
        "--http-port",
        str(options.http_port),
    ]
    arguments += ["--pools", str(options.num_pools), "--dtype", options.dtype]
    arguments += ["--kv-memory", options.kv_memory, "--log-level", options.log_level]
    arguments += ["--start-timeout", str(start_timeout_s), "--run-dir", str(folder.path)]
    arguments += ["--in-process"] if options.in_process else []
    arguments += ["--threads", str(options.threads)] if options.threads else []
    if options.served_model_name:
        arguments += ["--served-model-name", options.served_model_name]
    return arguments


_DOWN_HELP = f"""Stop the cluster of a run folder, started with or without --detach.

{EXIT_CODES_HELP} Nothing to stop is 3.
"""


def down(
    run_dir: Path | None = RUN_DIR,
    timeout: float = typer.Option(
        60.0, envvar="EXPERTMESH_TIMEOUT", help="Seconds to wait before killing it."
    ),
) -> None:
    folder = RunDir((run_dir or default_run_dir()).absolute())
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
    if not stop_running(folder, state, timeout):
        fail(f"pid {state['pid']} did not stop within {timeout:.0f} s and was killed")
    stdout().print(f"stopped ({state.get('url') or folder.path})", markup=False)


_STATUS_HELP = f"""Show what runs: phase, services, addresses, readiness.

{EXIT_CODES_HELP} 0 means that every service is ready.
"""


def status(
    run_dir: Path | None = RUN_DIR,
    as_json: bool = typer.Option(False, "--json", envvar="EXPERTMESH_JSON", help="For scripts."),
) -> None:
    report = cluster_report(RunDir((run_dir or default_run_dir()).absolute()))
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
        return {"phase": "not running", "run_dir": str(folder.path), "services": []}
    alive = folder.supervisor_alive(state)
    phase = state.get("phase", "unknown")
    if not alive and phase != "failed":
        phase = "stale"
    services = []
    with httpx.Client(trust_env=False, timeout=1.0) as client:
        for service in state.get("services", []):
            ready, detail = _service_state(service, client)
            services.append({**service, "ready": ready, "detail": detail})
    return {**state, "phase": phase, "run_dir": str(folder.path), "services": services}


def _service_state(service: dict[str, Any], client: httpx.Client) -> tuple[bool, str]:
    if not is_alive(service.get("pid"), service.get("started_at")):
        return False, "gone"
    where = service.get("ops") or service.get("http")
    if where is None:
        return False, "starting"
    try:
        answer = client.get(f"http://{where}/readyz")
    except httpx.HTTPError:
        return False, "does not answer"
    return answer.status_code == 200, readiness_text(answer)


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
