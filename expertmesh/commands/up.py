"""`expertmesh up`: the whole system on this machine."""

from pathlib import Path

import typer
from rich.console import Console

from expertmesh.console import EXIT_CODES_HELP, help_text, stderr, stdout
from expertmesh.detach import start_detached
from expertmesh.machine import usable_cores
from expertmesh.plan import DEMO_NAME, ClusterOptions, demo_model_dir, plan_cluster
from expertmesh.preflight import check_memory, check_port
from expertmesh.sizes import format_bytes
from expertmesh.spec import ClusterPlan
from expertmesh.state import RUN_DIR_HELP, RunDir, default_run_dir
from expertmesh.supervise import greet, supervise
from minimax_m2.weight_formats import CHOICES
from rpc.memory import available_memory_bytes


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_HELP))(up)


_HELP = f"""Start the whole system on 127.0.0.1: router, expert pools, attention, gateway.

Each service is a process of its own; the order is router, pools and attention, gateway, and
each waits until those before it are ready. Ctrl-C stops them in reverse order.

When a service dies the rest is stopped, unless another stands in for it (--replicas 2: a pool;
--attention 2: an attention service). Then the rest serves on and the dead one is started again.

Examples:

  expertmesh up

  expertmesh up --pools 4 --http-port 9000

  expertmesh up --pools 3 --replicas 2   (any one pool may die while requests run)

  expertmesh up --model ~/models/my-m2 --dtype bfloat16 --detach

  expertmesh up --model ~/models/minimax-m2 --expert-dtype int8 --linear-dtype int8

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
    attention: int = typer.Option(
        1,
        envvar="EXPERTMESH_ATTENTION",
        help="Attention services, each with a KV cache of its own; streams move when one dies.",
    ),
    replicas: int = typer.Option(
        0,
        envvar="EXPERTMESH_REPLICAS",
        help="Pools that hold each expert; the router then places them. 0: as --pools says, once.",
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
        help="All experts in the attention process (in each), no pools and no router.",
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
    expert_dtype: str = typer.Option(
        "auto",
        envvar="EXPERTMESH_EXPERT_DTYPE",
        help=f"Experts as held: {', '.join(CHOICES)}. All but float32 compute in bfloat16.",
    ),
    linear_dtype: str = typer.Option(
        "auto",
        envvar="EXPERTMESH_LINEAR_DTYPE",
        help="Attention's matrices and the LM head as held; the same choices.",
    ),
    kv_memory: str = typer.Option(
        "512MiB",
        envvar="EXPERTMESH_KV_MEMORY",
        help="KV cache of each attention service: a size like 2GiB, or 30% (of all of them) of "
        "the memory that the weights leave.",
    ),
    threads: int | None = typer.Option(
        None,
        envvar="EXPERTMESH_THREADS",
        help="Threads of every computing process; within a step they take turns. Default: the "
        "cores divided among the attention services.",
    ),
    max_concurrent: int = typer.Option(
        64,
        envvar="EXPERTMESH_MAX_CONCURRENT",
        help="Requests in flight for each client; more are answered with 429.",
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
    run_dir: Path | None = typer.Option(None, envvar="EXPERTMESH_RUN_DIR", help=RUN_DIR_HELP),
    background: bool = typer.Option(False, "--background", hidden=True),
) -> None:
    options = ClusterOptions(
        model=(model or demo_model_dir()).absolute(),
        http_port=http_port,
        num_pools=pools,
        num_attention=attention,
        replicas=replicas,
        in_process=in_process,
        dtype=dtype,
        expert_dtype=expert_dtype,
        linear_dtype=linear_dtype,
        kv_memory=kv_memory,
        threads=threads,
        log_level=log_level,
        max_concurrent=max_concurrent,
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


def _print_plan(plan: ClusterPlan, notes: Console) -> None:
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
    arguments += ["--replicas", str(options.replicas), "--attention", str(options.num_attention)]
    arguments += ["--expert-dtype", options.expert_dtype]
    arguments += ["--linear-dtype", options.linear_dtype]
    arguments += ["--kv-memory", options.kv_memory, "--log-level", options.log_level]
    arguments += ["--start-timeout", str(start_timeout_s), "--run-dir", str(folder.path)]
    arguments += ["--max-concurrent", str(options.max_concurrent)]
    arguments += ["--in-process"] if options.in_process else []
    arguments += ["--threads", str(options.threads)] if options.threads else []
    if options.served_model_name:
        arguments += ["--served-model-name", options.served_model_name]
    return arguments
