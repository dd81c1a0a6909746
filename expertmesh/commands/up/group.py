"""`expertmesh up`: start the whole system on this machine."""

from pathlib import Path

import typer
from rich.console import Console

from expertmesh.clients.chat import client_key
from expertmesh.cluster.cluster_plan import DEMO_NAME, demo_model_dir, plan_cluster
from expertmesh.cluster.detach import start_detached
from expertmesh.cluster.found_gpus import find_gpus
from expertmesh.cluster.machine import usable_cores
from expertmesh.cluster.options import ClusterOptions
from expertmesh.cluster.preflight import check_memory, check_port
from expertmesh.cluster.service_flags import Values, passed_to, secrets
from expertmesh.cluster.spec import ClusterPlan
from expertmesh.cluster.state import RUN_DIR_HELP, RunDir, default_run_dir
from expertmesh.commands.up.flags import with_service_flags
from expertmesh.commands.up.supervise import greet, supervise
from expertmesh.console import EXIT_CODES_HELP, help_text, stderr, stdout
from moe_model.formats import CHOICES
from rpc.process.memory import available_memory_bytes
from rpc.process.sizes import format_bytes


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_HELP))(up)


_HELP = f"""Start the whole system on 127.0.0.1: router, expert pools, attention, gateway.

Each service is a process of its own. The router starts first, then the pools and attention, then
the gateway; each waits until those before it are ready. Ctrl-C stops them in reverse order.

When a service dies, the others are stopped too, unless another one can take over its work: any pool
with --replicas 2, any attention service with --attention 2. Then the others keep serving, and the
dead one is started again.

Examples:

  expertmesh up

  expertmesh up --pools 4 --http-port 9000

  expertmesh up --pools 3 --replicas 2   # any one pool may die

  expertmesh up --model ~/models/minimax-m2 \\
    --pool-layers 0-26 --pool-layers 27-61

  expertmesh up --model ~/models/my-m2 --dtype bf16 --detach

  expertmesh up --model ~/models/minimax-m2 \\
    --expert-dtype int8 --linear-dtype int8

  expertmesh up --in-process   # experts inside attention, no pools

  expertmesh up --model ~/models/minimax-m2 \\
    --device cuda:0,cuda:1 --expert-dtype fp8

  expertmesh up --api-key-file keys.txt --cors-origin http://localhost:3000

With GPUs, attention and its keys and values are on the first one. Each GPU has a pool with as many
whole layers as it holds, and a pool on the CPU has the rest; a GPU that holds everything does it
without pools. auto and cuda stand for all GPUs that the kernels take; auto means the CPU where
there is none, or where attention does not fit. --attention-device and --expert-device are lists for
one kind of service.

With --pools, --pool-layers, --replicas or several attention services, GPUs are dealt out in turn,
attention first, then pools: --device cuda:0,cuda:1 gives attention cuda:0, the first pool cuda:1,
the second cuda:0.

All other flags of the services are passed on, --max-running to attention services, --canary-s to
pools. Give API keys in a file or in the environment: every user of this machine can read command
lines.

{EXIT_CODES_HELP}
"""


@with_service_flags
def up(
    context: typer.Context,
    http_port: int = typer.Option(
        8000,
        envvar="EXPERTMESH_HTTP_PORT",
        help="Port of the HTTP API on 127.0.0.1; 0: any free port.",
    ),
    pools: int | None = typer.Option(
        None,
        envvar="EXPERTMESH_POOLS",
        help="Number of expert pools with equal shares: pool i of N holds the layers l with "
        "l mod N = i. Default: as many as GPUs need; without GPUs 2.",
    ),
    pool_layers: list[str] = typer.Option(
        [],
        envvar="EXPERTMESH_POOL_LAYERS",
        help="Layers of a pool, like 0-26 or 0-20,40; once for each pool. In the environment "
        "separated by spaces.",
    ),
    attention: int = typer.Option(
        1,
        envvar="EXPERTMESH_UP_ATTENTION",
        help="Number of attention services, each with its own KV cache; when one dies, its "
        "requests continue on another.",
    ),
    replicas: int = typer.Option(
        0,
        envvar="EXPERTMESH_REPLICAS",
        help="Number of pools that hold each expert; the router decides which. 0: one pool.",
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
        help="Run all experts inside each attention process: no pools and no router.",
    ),
    detach: bool = typer.Option(
        False,
        "--detach",
        envvar="EXPERTMESH_DETACH",
        help="Return when ready and run on in the background; stop it with `expertmesh down`.",
    ),
    dtype: str = typer.Option(
        "auto", envvar="EXPERTMESH_DTYPE", help="Dtype to compute in: auto, f32 or bf16."
    ),
    expert_dtype: str = typer.Option(
        "auto",
        envvar="EXPERTMESH_EXPERT_DTYPE",
        help=f"Format of the experts' weights: {', '.join(CHOICES)}. All but f32 compute in bf16.",
    ),
    linear_dtype: str = typer.Option(
        "auto",
        envvar="EXPERTMESH_LINEAR_DTYPE",
        help="Format of attention's weights and of the LM head: the same choices.",
    ),
    kv_memory: str = typer.Option(
        "auto",
        envvar="EXPERTMESH_KV_MEMORY",
        help="KV cache of each attention service: a size like 2GiB, or a share like 30% of the "
        "memory that the weights leave, divided among the attention services. auto: 512MiB on a "
        "CPU, on a GPU all that --gpu-memory leaves.",
    ),
    threads: int | None = typer.Option(
        None,
        envvar="EXPERTMESH_THREADS",
        help="Threads of each pool and attention service; within a step they take turns. "
        "Default: the cores divided among the attention services.",
    ),
    ask: str | None = typer.Option(
        None, envvar="EXPERTMESH_ASK", help="A question to ask when the cluster is ready."
    ),
    start_timeout: float = typer.Option(
        900.0,
        envvar="EXPERTMESH_START_TIMEOUT",
        help="Give up when not ready after this many seconds.",
    ),
    log_level: str = typer.Option(
        "info", envvar="EXPERTMESH_LOG_LEVEL", help="Log level of the services."
    ),
    run_dir: Path | None = typer.Option(None, envvar="EXPERTMESH_RUN_DIR", help=RUN_DIR_HELP),
    background: bool = typer.Option(False, "--background", hidden=True),
    *,
    passed: Values,
) -> None:
    folder = RunDir((run_dir or default_run_dir(http_port)).absolute())
    options = ClusterOptions(
        model=(model or demo_model_dir()).absolute(),
        http_port=http_port,
        num_pools=pools,
        pool_layers=tuple(pool_layers),
        num_attention=attention,
        replicas=replicas,
        in_process=in_process,
        dtype=dtype,
        expert_dtype=expert_dtype,
        linear_dtype=linear_dtype,
        kv_memory=kv_memory,
        threads=threads,
        log_level=log_level,
        model_name=None if model else DEMO_NAME,
        passed=passed,
        secret_file=folder.secret_path,
        response_store=folder.path / "responses.sqlite",
    )
    named = [one["device"] for one in passed.values() if "device" in one]
    is_named = any("cuda" in device for device in named)
    plan = plan_cluster(options, usable_cores(), find_gpus(is_named=is_named))
    given = passed.get("gateway", {})
    api_key = client_key(next(iter(given.get("api_key", ())), None), given.get("api_key_file"))
    notes, out = stderr(), stdout()
    check_memory(plan, available_memory_bytes())
    if not detach:
        _print_plan(plan, notes)
    with folder.lock():
        check_port(http_port)
    if detach:
        state = start_detached(
            folder,
            _arguments(context, folder),
            passed_to("gateway", passed).environment,
            lambda line: notes.print(line, markup=False, soft_wrap=True),
        )
        greet(state["url"], folder, ask, api_key, out, notes)
        return
    code = supervise(
        plan,
        folder,
        greeting=not background,
        ask=ask,
        api_key=api_key,
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


def _arguments(context: typer.Context, folder: RunDir) -> list[str]:
    """The flags for the `up` in the background: ours, without what stays in this process."""
    kept_back = {"detach", "ask", "run_dir", *(one.name for one in secrets())}
    arguments = ["--background", "--run-dir", str(folder.path)]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name in kept_back or value is None:
            continue
        if isinstance(value, bool):
            arguments += (parameter.opts if value else parameter.secondary_opts)[:1]
        else:
            values = value if isinstance(value, list | tuple) else [value]
            arguments += [f"{parameter.opts[0]}={one}" for one in values]
    return arguments
