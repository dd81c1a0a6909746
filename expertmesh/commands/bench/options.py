"""Which options have the benchmarks of a server and of the engine in common?"""

import typer

NUM_PROMPTS = typer.Option(
    100,
    "--num-prompts",
    envvar="EXPERTMESH_NUM_PROMPTS",
    help="Number of requests or conversations.",
)
INPUT_LEN = typer.Option(
    128, "--random-input-len", envvar="EXPERTMESH_RANDOM_INPUT_LEN", help="Tokens in each prompt."
)
OUTPUT_LEN = typer.Option(
    64,
    "--random-output-len",
    envvar="EXPERTMESH_RANDOM_OUTPUT_LEN",
    help="Tokens in each answer, at most.",
)
PREFIX_LEN = typer.Option(
    0,
    "--random-prefix-len",
    envvar="EXPERTMESH_RANDOM_PREFIX_LEN",
    help="Tokens with which all prompts begin, in addition to the input length.",
)
RANGE_RATIO = typer.Option(
    0.0,
    "--random-range-ratio",
    envvar="EXPERTMESH_RANDOM_RANGE_RATIO",
    help="r from 0 to below 1: draw lengths from (1 - r) to (1 + r) times the given ones.",
)
DATASET = typer.Option(
    None,
    "--dataset",
    envvar="EXPERTMESH_DATASET",
    help="File with prompts, instead of random ones: JSON or JSON lines of {prompt}, {messages} "
    "or ShareGPT's {conversations}.",
)
DATASET_OUTPUT_LEN = typer.Option(
    128,
    "--output-len",
    envvar="EXPERTMESH_OUTPUT_LEN",
    help="Tokens in each answer, at most, for dataset entries without output_len.",
)
IGNORE_EOS = typer.Option(
    False,
    "--ignore-eos",
    envvar="EXPERTMESH_IGNORE_EOS",
    help="Do not let the model end an answer: all have their full length.",
)
TEMPERATURE = typer.Option(
    0.0, envvar="EXPERTMESH_TEMPERATURE", help="Sampling temperature; 0: greedy."
)
SEED = typer.Option(
    0, envvar="EXPERTMESH_SEED", help="Equal seeds give equal prompts and arrival times."
)
PERCENTILES = typer.Option(
    "99",
    "--percentiles",
    envvar="EXPERTMESH_PERCENTILES",
    help="Percentiles to show, like 50,90,99.",
)
JSON = typer.Option(
    False,
    "--json",
    envvar="EXPERTMESH_JSON",
    help="Print one line of JSON; the table goes to standard error.",
)
PLOT = typer.Option(
    None,
    "--plot",
    envvar="EXPERTMESH_PLOT",
    help="Draw latency distributions and throughput over time into this PNG (needs matplotlib).",
)
