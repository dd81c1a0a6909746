"""How does `expertmesh plan --gpus` show what fits?"""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from expertmesh.cluster.cluster_plan import describe
from expertmesh.console import print_json, stdout
from expertmesh.forecasting.gpu_plan import GpuPlan, advice, plan_formats
from moe_model.config import ModelConfig
from moe_model.gpus import check_flags
from moe_model.memory_need import gib


def show_gpu_plan(
    config: ModelConfig,
    path: Path,
    *,
    gpus: int,
    memory_gb: float,
    share: float,
    linear_format: str,
    positions: int,
    hop_s: float,
    as_json: bool,
) -> bool:
    """Whether any format fits. Raises ValueError naming a flag."""
    check_flags("auto", share)
    if not (1 <= gpus <= 64 and 0 < memory_gb <= 10_000):
        raise ValueError("--gpus: 1 to 64, together with --gpu-memory-gb, for example 80")
    if not 1 <= positions <= 10**9:
        raise ValueError(f"--positions: 1 to 1,000,000,000, got {positions}")
    made = plan_formats(
        config,
        [int(memory_gb * 2**30)] * gpus,
        linear_format=linear_format,
        share=share,
        positions=positions,
    )
    if as_json:
        print_json({"model": str(path), "formats": [one.as_json() for one in made]})
    else:
        _print(made, f"{path}: {describe(config)}", gpus, memory_gb, share, positions, hop_s)
    return any(one.fits for one in made)


def workspaces(made: Sequence[GpuPlan]) -> list[str]:
    """What processes take on a card beside weights, keys and values."""
    lines = [
        f"workspace of attention{' with all experts' if one.in_process else ''}: "
        f"{gib(one.attention.workspace.size)} ({one.attention.workspace})"
        for one in made
        if one.fits
    ]
    lines += [
        f"workspace of a pool: {gib(one.pool.workspace.size)} ({one.pool.workspace})"
        for one in made
        if one.fits and any(one.layers) and not one.in_process
    ]
    return list(dict.fromkeys(lines))


def _print(
    made: Sequence[GpuPlan],
    title: str,
    gpus: int,
    memory_gb: float,
    share: float,
    positions: int,
    hop_s: float,
) -> None:
    out = stdout()
    out.print(title, markup=False, soft_wrap=True)
    out.print(
        f"{gpus} GPU{'s' if gpus > 1 else ''} of {memory_gb:g} GiB, of which services use "
        f"{share:.0%}; keys and values of {positions:,} positions at least, in bf16; "
        f"attention in {made[0].linear_format}",
        soft_wrap=True,
    )
    table = Table("experts in", "KV positions", "what to place where", box=None)
    for one in made:
        where = "\n".join(one.placement())
        table.add_row(
            one.weight_format,
            f"{one.positions:,}" if one.fits else "-",
            where if one.fits else "attention does not fit the first card",
        )
    out.print(table)
    for line in workspaces(made):
        out.print(line, soft_wrap=True)
    if any(one.fits for one in made):
        out.print(
            "`expertmesh up --model FOLDER --expert-dtype FORMAT "
            f"--linear-dtype {made[0].linear_format}` places them so",
            soft_wrap=True,
        )
    for line in dict.fromkeys(advice(one, hop_s) for one in made if one.fits):
        if line:
            out.print(line, soft_wrap=True)
