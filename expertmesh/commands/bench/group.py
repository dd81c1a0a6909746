"""`expertmesh bench serve` and `bench offline`: how fast is a server, or the engine alone?"""

import math
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import typer

from expertmesh.clients.asked_server import API_KEY, BASE_URL
from expertmesh.clients.chat import client_key
from expertmesh.clients.router import API_KEY_FILE, RUN_DIR
from expertmesh.cluster.state import DEFAULT_URL, running_url
from expertmesh.commands.bench.replay import HELP as REPLAY_HELP
from expertmesh.commands.bench.replay import replay
from expertmesh.commands.bench.run import (
    Bar,
    check_plot,
    finish,
    measure,
    parse_goodput,
    parse_percentiles,
)
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_NOT_RUNNING,
    EXIT_USAGE,
    command_errors,
    help_text,
)
from expertmesh.help_pages import CommandGroup
from expertmesh.loadgen.record import Record
from expertmesh.loadgen.serve_bench import ServeOptions, WorkloadOptions, run_serve, serve_result
from expertmesh.loadgen.workload import RandomShape
from moe_model.weights.load_flag import LOAD_HELP

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


def register(app: typer.Typer) -> None:
    group = CommandGroup(
        help="Measure a server, the engine alone, or the pools alone.", no_args_is_help=True
    )
    group.command("serve", help=help_text(_SERVE_HELP))(serve)
    group.command("offline", help=help_text(_OFFLINE_HELP))(offline)
    group.command("replay", help=REPLAY_HELP)(replay)
    app.add_typer(group, name="bench")


_SERVE_HELP = f"""Put load on a running server; print its latencies and throughput.

TTFT is the time to the first token, TPOT the mean time for each later token, ITL the gap between
two arrivals, and E2EL the time of the whole request, as in vLLM's benchmark. Any OpenAI-compatible
server will do. ExpertMesh also reports which share of its steps went into expert calls, and how
many prompt tokens came from the prefix cache.

There are two questions; measure them separately. How fast is a single user served? Use
--max-concurrency 1. How much load can the server take? Raise --max-concurrency or --request-rate
until the latencies are too long for you. The lengths of prompts and answers decide the results, so
give them with every number. Without --ignore-eos the model decides where answers end.

Ctrl-C ends the run and prints what was measured until then.

Examples:

  expertmesh bench serve --num-prompts 32 --max-concurrency 8 --ignore-eos

  expertmesh bench serve --request-rate 4 \\
    --random-input-len 1024 --random-output-len 128 --ignore-eos

  expertmesh bench serve --random-prefix-len 2000   # effect of the prefix cache

  expertmesh bench serve --turns 4 --max-concurrency 4   # growing conversations

  expertmesh bench serve --dataset chats.jsonl --multi-turn \\
    --percentiles 50,90,99 --plot run.png

{EXIT_CODES_HELP} Also 130: ended by Ctrl-C.
"""


def serve(
    base_url: str | None = BASE_URL,
    run_dir: Path | None = RUN_DIR,
    model: str | None = typer.Option(
        None,
        envvar="EXPERTMESH_MODEL_NAME",
        help="Model name in the API. Default: the first one listed.",
    ),
    api_key: str | None = API_KEY,
    api_key_file: Path | None = API_KEY_FILE,
    endpoint: str = typer.Option(
        "auto",
        envvar="EXPERTMESH_ENDPOINT",
        help="API to use: chat, completions, or auto (completions for random prompts, chat for "
        "conversations).",
    ),
    num_prompts: int = _NUM_PROMPTS,
    request_rate: float = typer.Option(
        math.inf,
        envvar="EXPERTMESH_REQUEST_RATE",
        help="Requests sent per second; inf: as many as --max-concurrency allows.",
    ),
    burstiness: float = typer.Option(
        1.0,
        envvar="EXPERTMESH_BURSTINESS",
        help="With a rate: 1 is a Poisson process, below 1 comes in bursts, above 1 is steadier.",
    ),
    max_concurrency: int | None = typer.Option(
        None,
        envvar="EXPERTMESH_MAX_CONCURRENCY",
        help="Most requests open at once; 0: no limit. Default: no limit with a rate, else 32.",
    ),
    random_input_len: int = _INPUT_LEN,
    random_output_len: int = _OUTPUT_LEN,
    random_prefix_len: int = _PREFIX_LEN,
    random_range_ratio: float = _RANGE_RATIO,
    turns: int = typer.Option(
        1,
        envvar="EXPERTMESH_TURNS",
        help="Turns in each random conversation; each is sent with all turns before it.",
    ),
    dataset: Path | None = _DATASET,
    output_len: int = _DATASET_OUTPUT_LEN,
    multi_turn: bool = typer.Option(
        False,
        "--multi-turn",
        envvar="EXPERTMESH_MULTI_TURN",
        help="Ask all user turns of each conversation in the dataset, not only the first.",
    ),
    warmup: int = typer.Option(
        0,
        envvar="EXPERTMESH_WARMUP",
        help="Requests that are not measured, sent first; one more checks the server.",
    ),
    ignore_eos: bool = _IGNORE_EOS,
    temperature: float = _TEMPERATURE,
    seed: int = _SEED,
    percentiles: str = _PERCENTILES,
    goodput: list[str] = typer.Option(
        [],
        envvar="EXPERTMESH_GOODPUT",
        help="Count the requests within a limit in ms, for example ttft:500; repeat for more.",
    ),
    as_json: bool = _JSON,
    plot: Path | None = _PLOT,
) -> None:
    with command_errors(EXIT_USAGE):
        options = ServeOptions(
            base_url=base_url or running_url(run_dir) or DEFAULT_URL,
            workload=WorkloadOptions(
                num_prompts=num_prompts,
                shape=RandomShape(
                    input_len=random_input_len,
                    output_len=random_output_len,
                    prefix_len=random_prefix_len,
                    range_ratio=random_range_ratio,
                    turns=turns,
                ),
                dataset=dataset,
                output_len=output_len,
                multi_turn=multi_turn,
                seed=seed,
            ),
            model=model,
            api_key=client_key(api_key, api_key_file),
            endpoint=endpoint,
            rate=request_rate,
            burstiness=burstiness,
            max_concurrency=max_concurrency,
            warmup=warmup,
            ignore_eos=ignore_eos,
            temperature=temperature,
            percentiles=parse_percentiles(percentiles),
            goodput=parse_goodput(goodput),
        )
        check_plot(plot)
    served = [model or ""]

    def work(records: list[Record], bar: "Bar") -> Coroutine[Any, Any, Any]:
        def on_ready(name: str, total: int) -> None:
            served[0] = name
            bar.start(total)

        return run_serve(options, records, on_ready=on_ready, on_done=bar.count)

    records, interrupted = measure(work, EXIT_NOT_RUNNING)
    result = serve_result(options, served[0], records)
    finish(result, records, "Serving Benchmark Result", as_json, plot, interrupted)


_OFFLINE_HELP = f"""Measure the engine of `LLM.generate` in this process: no HTTP, no pools.

All prompts are submitted at once, so TTFT and E2EL include the wait for a place in the batch
(--max-num-seqs). Compare throughputs instead.

Examples:

  expertmesh bench offline --num-prompts 64 --ignore-eos

  expertmesh bench offline --model ~/models/my-m2 --dtype bf16 \\
    --max-num-seqs 32 --json

{EXIT_CODES_HELP} Also 130: ended by Ctrl-C.
"""


def offline(
    model: Path | None = typer.Option(
        None,
        envvar="EXPERTMESH_MODEL",
        help="Checkpoint folder. Default: the bundled demonstration model.",
    ),
    load: str = typer.Option("", envvar="EXPERTMESH_LOAD", help=f"{LOAD_HELP}."),
    dtype: str = typer.Option(
        "auto", envvar="EXPERTMESH_DTYPE", help="Dtype to compute in: auto, f32 or bf16."
    ),
    kv_memory: str = typer.Option(
        "auto", envvar="EXPERTMESH_KV_MEMORY", help="Size of the KV cache, for example 2GiB."
    ),
    max_num_seqs: int = typer.Option(
        64, envvar="EXPERTMESH_MAX_NUM_SEQS", help="Most sequences in one step."
    ),
    threads: int = typer.Option(
        0, envvar="EXPERTMESH_THREADS", help="Threads to compute with; 0: all cores."
    ),
    num_prompts: int = _NUM_PROMPTS,
    random_input_len: int = _INPUT_LEN,
    random_output_len: int = _OUTPUT_LEN,
    random_prefix_len: int = _PREFIX_LEN,
    random_range_ratio: float = _RANGE_RATIO,
    dataset: Path | None = _DATASET,
    output_len: int = _DATASET_OUTPUT_LEN,
    warmup: int = typer.Option(
        1, envvar="EXPERTMESH_WARMUP", help="Requests that are not measured, sent first."
    ),
    ignore_eos: bool = _IGNORE_EOS,
    temperature: float = _TEMPERATURE,
    seed: int = _SEED,
    percentiles: str = _PERCENTILES,
    as_json: bool = _JSON,
    plot: Path | None = _PLOT,
) -> None:
    from expertmesh.loadgen.offline_bench import OfflineOptions, offline_result, run_offline
    from expertmesh.offline.connect import engine_options

    with command_errors(EXIT_USAGE):
        options = OfflineOptions(
            engine=engine_options(
                model,
                load=load,
                dtype=dtype,
                expert_dtype=None,
                linear_dtype=None,
                device=None,
                max_model_len=None,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=None,
                kv_memory=kv_memory,
                threads=threads,
            ),
            workload=WorkloadOptions(
                num_prompts=num_prompts,
                shape=RandomShape(
                    input_len=random_input_len,
                    output_len=random_output_len,
                    prefix_len=random_prefix_len,
                    range_ratio=random_range_ratio,
                ),
                dataset=dataset,
                output_len=output_len,
                seed=seed,
            ),
            ignore_eos=ignore_eos,
            temperature=temperature,
            warmup=warmup,
            percentiles=parse_percentiles(percentiles),
        )
        check_plot(plot)

    def work(records: list[Record], bar: "Bar") -> Coroutine[Any, Any, Any]:
        return run_offline(options, records, on_ready=bar.start, on_done=bar.count)

    records, interrupted = measure(work, EXIT_USAGE)
    result = offline_result(options, records)
    finish(result, records, "Offline Benchmark Result", as_json, plot, interrupted)
