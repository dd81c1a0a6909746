"""`expertmesh bench serve`: how fast is a running server?"""

import math
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from expertmesh.clients.asked_server import API_KEY, BASE_URL
from expertmesh.clients.chat import client_key
from expertmesh.clients.router import API_KEY_FILE, RUN_DIR
from expertmesh.cluster.state import DEFAULT_URL, running_url
from expertmesh.commands.bench.options import Measuring, measures
from expertmesh.commands.bench.run import (
    Bar,
    finish,
    measure,
    parse_goodput,
)
from expertmesh.console import EXIT_CODES_HELP, EXIT_NOT_RUNNING, EXIT_USAGE, command_errors
from expertmesh.loadgen.record import Record
from expertmesh.loadgen.serve_bench import ServeOptions, run_serve, serve_result

HELP = f"""Put load on a running server; print its latencies and throughput.

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


@measures
def serve(
    asked: Measuring,
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
    turns: int = typer.Option(
        1,
        envvar="EXPERTMESH_TURNS",
        help="Turns in each random conversation; each is sent with all turns before it.",
    ),
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
    goodput: list[str] = typer.Option(
        [],
        envvar="EXPERTMESH_GOODPUT",
        help="Count the requests within a limit in ms, for example ttft:500; repeat for more.",
    ),
) -> None:
    with command_errors(EXIT_USAGE):
        options = ServeOptions(
            base_url=base_url or running_url(run_dir) or DEFAULT_URL,
            workload=replace(
                asked.workload,
                shape=replace(asked.workload.shape, turns=turns),
                multi_turn=multi_turn,
            ),
            model=model,
            api_key=client_key(api_key, api_key_file),
            endpoint=endpoint,
            rate=request_rate,
            burstiness=burstiness,
            max_concurrency=max_concurrency,
            warmup=warmup,
            ignore_eos=asked.ignore_eos,
            temperature=asked.temperature,
            percentiles=asked.percentiles,
            goodput=parse_goodput(goodput),
        )
    served = [model or ""]

    def work(records: list[Record], bar: "Bar") -> Coroutine[Any, Any, Any]:
        def on_ready(name: str, total: int) -> None:
            served[0] = name
            bar.start(total)

        return run_serve(options, records, on_ready=on_ready, on_done=bar.count)

    records, interrupted = measure(work, EXIT_NOT_RUNNING)
    result = serve_result(options, served[0], records)
    finish(result, records, "Serving Benchmark Result", asked.as_json, asked.plot, interrupted)
