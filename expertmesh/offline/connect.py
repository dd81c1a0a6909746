"""Which backend does `LLM` use? An engine for a checkpoint folder, or a running cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expertmesh.cluster.cluster_plan import DEMO_NAME, demo_model_dir
from expertmesh.cluster.state import running_url
from expertmesh.console import CommandError
from expertmesh.offline.backend import Backend

if TYPE_CHECKING:
    from expertmesh.offline.in_process import EngineOptions

_DTYPES = {"half": None, "float16": None, "fp16": None, "float": "f32"}


def engine_options(
    model: str | Path | None,
    *,
    load: str | None,
    dtype: str | None,
    expert_dtype: str | None,
    linear_dtype: str | None,
    device: str | None,
    gpu_memory: float | None = None,
    max_model_len: int | None,
    max_num_seqs: int | None,
    max_num_batched_tokens: int | None,
    kv_memory: str | int | None,
    kv_host_memory: str | int | None = None,
    threads: int | None,
) -> "EngineOptions":
    """The engine's options. Raises ValueError naming the argument."""
    from expertmesh.offline.in_process import EngineOptions

    folder = demo_model_dir() if model in (None, DEMO_NAME) else Path(str(model)).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"model: {str(model)!r} is not a checkpoint folder; give the path of a local folder, "
            f"or {DEMO_NAME!r} (nothing is downloaded)"
        )
    name = str(dtype or "auto").removeprefix("torch.")
    if _DTYPES.get(name, name) is None:
        raise ValueError(f"dtype: auto, f32 or bf16, got {name!r}")
    chosen: dict[str, Any] = {
        "load": load,
        "dtype": _DTYPES.get(name, name),
        "expert_dtype": expert_dtype,
        "linear_dtype": linear_dtype,
        "device": device,
        "gpu_memory": gpu_memory,
        "max_model_len": max_model_len,
        "max_running": max_num_seqs,
        "max_batch_tokens": max_num_batched_tokens,
        "kv_memory": None if kv_memory is None else str(kv_memory),
        "kv_host_memory": None if kv_host_memory is None else str(kv_host_memory),
        "threads": threads,
    }
    return EngineOptions(
        model=folder, **{name: value for name, value in chosen.items() if value is not None}
    )


async def open_backend(
    options: "EngineOptions | None",
    base_url: str | None,
    cluster: str | Path | bool | None,
    api_key: str | None,
    model: str | Path | None,
) -> Backend:
    """An engine for `options`, else the cluster with the URL or the run folder."""
    if options is not None:
        from expertmesh.offline.in_process import open_in_process

        return await open_in_process(options)
    from expertmesh.offline.over_http import open_over_http

    if base_url is not None and cluster:
        raise ValueError("cluster: give base_url or cluster, not both")
    url = base_url if base_url is not None else cluster_url(cluster or True)
    return await open_over_http(url, api_key=api_key, model=None if model is None else str(model))


def cluster_url(cluster: str | Path | bool) -> str:
    """The URL in a run folder's state. Raises ValueError if no cluster runs from it."""
    given = None if isinstance(cluster, bool) else Path(cluster).expanduser()
    if given is not None and given.is_file():
        given = given.parent
    try:
        url = running_url(given)
    except CommandError as error:
        raise ValueError(f"cluster: {error}") from None
    if url is None:
        where = f"from {given}" if given is not None else "here"
        raise ValueError(f"cluster: none runs {where}; start one with `expertmesh up --detach`")
    return url
