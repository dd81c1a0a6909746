"""Which flags have the benchmarks of a server and of the engine in common?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from expertmesh.commands.bench.run import check_plot, parse_percentiles
from expertmesh.commands.shared_flags import with_flags
from expertmesh.console import EXIT_USAGE, command_errors
from expertmesh.loadgen.serve_bench import WorkloadOptions
from expertmesh.loadgen.workload import RandomShape

_NUM_PROMPTS = typer.Option(
    100,
    "--num-prompts",
    envvar="EXPERTMESH_NUM_PROMPTS",
    help="Number of requests or conversations.",
)
_INPUT_LEN = typer.Option(
    128, "--random-input-len", envvar="EXPERTMESH_RANDOM_INPUT_LEN", help="Tokens in each prompt."
)
_OUTPUT_LEN = typer.Option(
    64,
    "--random-output-len",
    envvar="EXPERTMESH_RANDOM_OUTPUT_LEN",
    help="Tokens in each answer, at most.",
)
_PREFIX_LEN = typer.Option(
    0,
    "--random-prefix-len",
    envvar="EXPERTMESH_RANDOM_PREFIX_LEN",
    help="Tokens with which all prompts begin, in addition to the input length.",
)
_RANGE_RATIO = typer.Option(
    0.0,
    "--random-range-ratio",
    envvar="EXPERTMESH_RANDOM_RANGE_RATIO",
    help="r from 0 to below 1: draw lengths from (1 - r) to (1 + r) times the given ones.",
)
_DATASET = typer.Option(
    None,
    "--dataset",
    envvar="EXPERTMESH_DATASET",
    help="File with prompts, instead of random ones: JSON or JSON lines of {prompt}, {messages} "
    "or ShareGPT's {conversations}.",
)
_DATASET_OUTPUT_LEN = typer.Option(
    128,
    "--output-len",
    envvar="EXPERTMESH_OUTPUT_LEN",
    help="Tokens in each answer, at most, for dataset entries without output_len.",
)
_IGNORE_EOS = typer.Option(
    False,
    "--ignore-eos",
    envvar="EXPERTMESH_IGNORE_EOS",
    help="Do not let the model end an answer: all have their full length.",
)
_TEMPERATURE = typer.Option(
    0.0, envvar="EXPERTMESH_TEMPERATURE", help="Sampling temperature; 0: greedy."
)
_SEED = typer.Option(
    0, envvar="EXPERTMESH_SEED", help="Equal seeds give equal prompts and arrival times."
)
_PERCENTILES = typer.Option(
    "99",
    "--percentiles",
    envvar="EXPERTMESH_PERCENTILES",
    help="Percentiles to show, like 50,90,99.",
)
_JSON = typer.Option(
    False,
    "--json",
    envvar="EXPERTMESH_JSON",
    help="Print one line of JSON; the table goes to standard error.",
)
_PLOT = typer.Option(
    None,
    "--plot",
    envvar="EXPERTMESH_PLOT",
    help="Draw latency distributions and throughput over time into this PNG (needs matplotlib).",
)
_FLAGS: dict[str, tuple[Any, Any]] = {
    "num_prompts": (int, _NUM_PROMPTS),
    "random_input_len": (int, _INPUT_LEN),
    "random_output_len": (int, _OUTPUT_LEN),
    "random_prefix_len": (int, _PREFIX_LEN),
    "random_range_ratio": (float, _RANGE_RATIO),
    "dataset": (Path | None, _DATASET),
    "output_len": (int, _DATASET_OUTPUT_LEN),
    "ignore_eos": (bool, _IGNORE_EOS),
    "temperature": (float, _TEMPERATURE),
    "seed": (int, _SEED),
    "percentiles": (str, _PERCENTILES),
    "as_json": (bool, _JSON),
    "plot": (Path | None, _PLOT),
}


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is asked, how it is answered, and how the result is told."""

    workload: WorkloadOptions
    ignore_eos: bool
    temperature: float
    percentiles: tuple[float, ...]
    as_json: bool
    plot: Path | None


def measures(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first parameter is a `Measuring`, the flags that fill it."""
    return with_flags(command, _FLAGS, _measuring)


def _measuring(
    num_prompts: int,
    random_input_len: int,
    random_output_len: int,
    random_prefix_len: int,
    random_range_ratio: float,
    dataset: Path | None,
    output_len: int,
    seed: int,
    percentiles: str,
    plot: Path | None,
    **others: Any,
) -> Measuring:
    """Raises CommandError."""
    with command_errors(EXIT_USAGE):
        shape = RandomShape(
            input_len=random_input_len,
            output_len=random_output_len,
            prefix_len=random_prefix_len,
            range_ratio=random_range_ratio,
        )
        workload = WorkloadOptions(
            num_prompts=num_prompts,
            shape=shape,
            dataset=dataset,
            output_len=output_len,
            seed=seed,
        )
        check_plot(plot)
        return Measuring(
            workload=workload, percentiles=parse_percentiles(percentiles), plot=plot, **others
        )
