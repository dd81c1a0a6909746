"""What will `up` start, with which flags, on how many cores and in how much memory?

Pure arithmetic on the checkpoint's config: nothing is started or loaded here. Pools hold all
experts of their layers (layout.py), so that each MoE layer is one call.
"""

from collections.abc import Iterable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from expertmesh.cluster.found_gpus import FoundGpus
from expertmesh.cluster.layout import DEFAULT_POOLS, layers_text
from expertmesh.cluster.options import ClusterOptions, attention_names
from expertmesh.cluster.service_flags import Values, check_service, passed_to
from expertmesh.cluster.sizing import HELD_FACTOR, Sizing
from expertmesh.cluster.spec import ClusterPlan, ServiceSpec
from expertmesh.console import EXIT_USAGE, CommandError, command_errors
from moe_model.config import ModelConfig
from moe_model.families.known import load_config
from moe_model.formats import read_flags
from rpc.process.sizes import format_bytes

MB = 1_000_000
ROUTER_BASE_BYTES = 80 * MB
GATEWAY_BASE_BYTES = 200 * MB
POOL_BASE_BYTES = 320 * MB
ATTENTION_BASE_BYTES = 400 * MB
DRAIN_S = 5.0
"""How long running requests may go on after Ctrl-C, unless a flag gives another time."""
DEFAULTS = {
    "drain_s": DRAIN_S,
    "grace_s": DRAIN_S,
    "response_store": "responses.sqlite in the run folder",
}
"""Defaults of services' flags that differ in `up`."""
STOP_SLACK_S = 5.0
"""Time between the end of a service's grace period and SIGKILL."""
MAX_ATTENTION = 64
DEMO_NAME = "expertmesh-demo"


def demo_model_dir() -> Path:
    """The bundled demonstration checkpoint. Raises CommandError where it is not installed."""
    folder = Path(str(files("demo_model"))) / "model"
    if not (folder / "config.json").exists():
        raise CommandError(
            f"the bundled demonstration model is not in {folder}; give a checkpoint with --model"
        )
    return folder


def plan_cluster(
    options: ClusterOptions, cores: int, found: FoundGpus | None = None
) -> ClusterPlan:
    """Plan every process. `found`: the GPUs of this machine.

    Raises CommandError (usage) naming a flag that cannot be met.
    """
    config = _load(options.model)
    for flag, value, least, most in (
        ("--http-port", options.http_port, 0, 65535),
        ("--pools", options.num_pools, 1, config.num_layers),
        ("--attention", options.num_attention, 1, MAX_ATTENTION),
        ("--replicas", options.replicas, 0, options.num_pools or DEFAULT_POOLS),
    ):
        if value is not None and not least <= value <= most:
            raise CommandError(f"{flag}: {least} to {most}, got {value}", EXIT_USAGE)
    with command_errors(EXIT_USAGE):
        options = replace(options, **read_flags(options))
    if options.threads is not None and options.threads < 1:
        raise CommandError(f"--threads: at least 1, got {options.threads}", EXIT_USAGE)
    options = replace(options, dtype=_compute_dtype(options))
    sizing = Sizing(config, options, found or FoundGpus())
    options = replace(options, in_process=sizing.layout.in_process)
    # Within a step the services take turns: attention waits while a layer's pool computes, and
    # pools with different layers wait for each other, so they can share cores. Only attention
    # services compute at the same time.
    threads = options.threads or max(1, cores // options.num_attention)
    computing = _attentions(options, sizing, threads)
    if not options.in_process:
        computing = [*_router_and_pools(options, sizing, threads), *computing]
    passed = _without_devices(options.passed)
    services, stop_grace_s = _with_passed((*computing, _gateway(options)), passed)
    return ClusterPlan(
        model=str(options.model),
        description=describe(config),
        services=services,
        memory_lines=(
            *(_memory_line(service, sizing) for service in services),
            *([f"on CPUs: {sizing.why}"] if sizing.why else []),
        ),
        stop_grace_s=stop_grace_s,
    )


def _compute_dtype(options: ClusterOptions) -> str:
    """The dtype for all services: `auto` becomes bf16 with a format that only computes in bf16."""
    asked = {options.expert_dtype, options.linear_dtype} - {"auto", "f32"}
    return "bf16" if options.dtype == "auto" and asked else options.dtype


def _without_devices(passed: Values) -> Values:
    """What is passed on as it was given: devices have been dealt out."""
    return {
        module: {name: value for name, value in given.items() if name != "device"}
        for module, given in passed.items()
    }


def _with_passed(
    services: Iterable[ServiceSpec], values: Values
) -> tuple[tuple[ServiceSpec, ...], float]:
    """(the services with the flags passed on to them, seconds that a stage gets to stop).

    Raises CommandError (usage) naming a flag that its service would refuse.
    """
    done, grace_s = [], DRAIN_S
    for service in services:
        passed = passed_to(service.module, values)
        flags = (*service.flags, *passed.arguments)  # the last one wins: the caller's
        dials = [f"{flag}=127.0.0.1:1" for flag, _ in service.dials]
        config = check_service(service.module, (*flags, *dials), passed.environment)
        grace_s = max(grace_s, getattr(config, "grace_s", 0.0), getattr(config, "drain_s", 0.0))
        done.append(replace(service, flags=flags, environment=passed.environment))
    return tuple(done), grace_s + STOP_SLACK_S


def describe(config: ModelConfig) -> str:
    """One line with the sizes of the model, for people."""
    total = config.attention_params + config.num_pieces * config.expert_params
    parameters = f"{total / 1e9:,.1f} B" if total >= 1e9 else f"{total / 1e6:,.1f} M"
    return (
        f"{parameters} parameters, {config.num_layers} layers, "
        f"{config.num_experts} experts with top-{config.top_k}, hidden {config.hidden_size}"
    )


def _load(model: Path) -> ModelConfig:
    if not model.is_dir():
        raise CommandError(f"--model {model}: not a checkpoint folder", EXIT_USAGE)
    try:
        return load_config(model)
    except ValueError as error:
        raise CommandError(f"--model {model}: {error}", EXIT_USAGE) from None


def _router_and_pools(options: ClusterOptions, sizing: Sizing, threads: int) -> list[ServiceSpec]:
    router = ServiceSpec(
        name="router",
        module="router_svc",
        stage=0,
        flags=(*_common(options), *("--replicas", str(options.replicas))),
        memory_bytes=ROUTER_BASE_BYTES,
    )
    pools = []
    for name, layers in sizing.layout.layers.items():
        fixed = ("--layers", layers_text(layers)) if layers else ()
        pools.append(
            ServiceSpec(
                name=name,
                module="expert_svc",
                stage=1,
                flags=(
                    *_computing(options, threads),
                    *("--pool-id", name),
                    *("--expert-dtype", options.expert_dtype),
                    *sizing.flags(name),
                    *fixed,
                ),
                dials=(("--router", "router"),),
                threads=threads,
                group="pool" if options.replicas > 1 else "",
                memory_bytes=POOL_BASE_BYTES + int(HELD_FACTOR * sizing.host_bytes(name)),
            )
        )
    return [router, *pools]


def _attentions(options: ClusterOptions, sizing: Sizing, threads: int) -> list[ServiceSpec]:
    return [
        ServiceSpec(
            name=name,
            module="attention_svc",
            stage=1,
            flags=_attention_flags(options, sizing, threads, name),
            dials=() if options.in_process else (("--router", "router"),),
            threads=threads,
            # All hold the same weights, so that with several each can replace another.
            group="attention service" if options.num_attention > 1 else "",
            memory_bytes=ATTENTION_BASE_BYTES + int(HELD_FACTOR * sizing.host_bytes(name)),
        )
        for name in attention_names(options)
    ]


def _gateway(options: ClusterOptions) -> ServiceSpec:
    named = "served_model_name" in options.passed.get("gateway", {})
    name = () if named else ("--served-model-name", options.model_name or options.model.name)
    discovery: tuple[tuple[str, str], ...] = (("--router", "router"),)
    if options.in_process:
        discovery = tuple(("--attention", name) for name in attention_names(options))
    return ServiceSpec(
        name="gateway",
        module="gateway",
        stage=2,
        flags=(
            *("--model", str(options.model)),
            *("--listen", f"127.0.0.1:{options.http_port}"),
            *name,
            *("--drain-s", str(DRAIN_S)),
            *_response_store(options),
            *("--restore-thinking", "always"),  # one person's machine, and often no keys
            *("--log-level", options.log_level),
            *_secret(options),
        ),
        dials=discovery,
        memory_bytes=GATEWAY_BASE_BYTES,
    )


def _common(options: ClusterOptions) -> tuple[str, ...]:
    return (
        *("--listen", "127.0.0.1:0"),
        *("--ops-listen", "127.0.0.1:0"),
        *("--log-level", options.log_level),
        *_secret(options),
    )


def _secret(options: ClusterOptions) -> tuple[str, ...]:
    return () if options.secret_file is None else ("--secret-file", str(options.secret_file))


def _response_store(options: ClusterOptions) -> tuple[str, ...]:
    path = options.response_store
    return () if path is None else ("--response-store", str(path))


def _computing(options: ClusterOptions, threads: int) -> tuple[str, ...]:
    return (
        *_common(options),
        *("--model", str(options.model)),
        *("--dtype", options.dtype),
        *("--threads", str(threads)),
        *("--grace-s", str(DRAIN_S)),
    )


def _attention_flags(
    options: ClusterOptions, sizing: Sizing, threads: int, name: str
) -> tuple[str, ...]:
    return (
        *_computing(options, threads),
        *("--attention-id", name),
        *("--transport", "in_process" if options.in_process else "grpc"),
        *("--linear-dtype", options.linear_dtype),
        *(("--expert-dtype", options.expert_dtype) if options.in_process else ()),
        *("--kv-memory", str(sizing.kv[name])),
        *sizing.flags(name),
    )


def _memory_line(service: ServiceSpec, sizing: Sizing) -> str:
    layers = sizing.layout.layers.get(service.name, ())
    text = layers_text(layers)
    parts = [f"layers {text}" if len(text) < 20 else f"{len(layers)} layers"] if layers else []
    parts.append(format_bytes(service.memory_bytes))
    device = sizing.devices.get(service.name, "cpu")
    if device != "cpu":
        parts.append(f"{format_bytes(sizing.held_bytes(service.name))} on {device}")
    if service.name in sizing.kv:
        parts[-1] += f" (KV cache {format_bytes(sizing.kv[service.name])})"
    threads = f"{service.threads} thread{'s' if service.threads > 1 else ''}"
    return f"{service.name}: {', '.join(parts)}, {threads}"
