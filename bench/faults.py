"""What does each fault cost? Pools and links are broken under 8 streams; pauses and wrong tokens counted.

Real processes on a tiny float32 model, layer-striped over pools with two replicas each unless
the row says otherwise. Every request of every run, void ones included, is checked: each token once, in
order, equal to the oracle's; one terminal event; usage.

Pause of a stream = its longest gap between tokens from the fault on (a new request's first token
counts from its sending), minus the 99th percentile of the gaps before the fault in the same run;
pooled over streams and trials. A trial whose time before the fault has a gap longer than that
percentile by the row's own bound is void and repeated, at most 3 times.

Progress on standard error; the last line on standard output is JSON, by row.

    .venv/bin/python bench/faults.py [--only KEY ...] [--trials N] [--minutes 15]
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fault_rig import Sample, percentile, say, work_folder
from fault_rows import ROWS, Row

from tests.chaos import network
from tests.chaos.history import Verdict

MAX_REPEATS = 3


def run_row(key: str, row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """One row; its own failure is reported, and ends it."""
    if row.own_network and not network.is_ours():
        reason = network.unavailable()
        if not reason:
            return run_inside(key, options)
        if key != "blackhole":
            return {"skipped": reason}
        say(f"{key}: {reason}; a proxy that passes nothing stands in for the dropped link")
    samples: list[Sample] = []
    verdict, void, error = Verdict(), 0, ""
    until_s = time.monotonic() + 60 * options.minutes
    wanted = options.trials or row.trials
    try:
        with work_folder() as folder:
            trials = row.run(folder)
            repeats = 0
            for sample in trials:
                verdict += sample.verdict
                is_void = sample.control_pause_ms > row.control_ms
                void += is_void
                say(f"{key} {len(samples) + 1}/{wanted}: {describe(sample)}{', void' * is_void}")
                for problem in sample.verdict.problems[:3]:
                    say(f"    {problem}")
                if is_void and repeats < MAX_REPEATS:
                    repeats += 1
                else:
                    repeats = 0
                    if not is_void:
                        samples.append(sample)
                    else:
                        wanted -= 1  # four void runs: this trial has no value
                if len(samples) >= wanted:
                    break
                if time.monotonic() > until_s:
                    error = f"stopped after {options.minutes:g} minutes"
                    break
            trials.close()
    except (AssertionError, OSError, subprocess.SubprocessError) as failure:
        error = f"{type(failure).__name__}: {failure}"[-1500:]
        say(f"{key}: {error}")
    return summary(row, samples, verdict, void, error)


def describe(sample: Sample) -> str:
    extra = ", ".join(f"{name} {rounded(value)}" for name, value in sample.extra.items())
    return (
        f"longest pause {max(sample.pauses_ms, default=0):.0f} ms, gap p99 {sample.gap_p99_ms:.0f}, "
        f"control {sample.control_pause_ms:.0f}, rate x {sample.rate_ratio:.2f}, "
        f"{sample.verdict.failed} failed of {sample.verdict.requests}, "
        f"{sample.verdict.wrong_tokens} wrong tokens; {extra}"
    )


def summary(
    row: Row, samples: list[Sample], verdict: Verdict, void: int, error: str
) -> dict[str, Any]:
    pauses = [pause for sample in samples for pause in sample.pauses_ms]
    result: dict[str, Any] = {
        "trials": len(samples),
        "void_runs": void,
        "requests": verdict.requests,
        "failed_requests": verdict.failed,
        "wrong_tokens": verdict.wrong_tokens,
        "pause_p50_ms": rounded(percentile(pauses, 0.5)) if pauses else None,
        "pause_p99_ms": rounded(percentile(pauses, 0.99)) if pauses else None,
    }
    if samples:
        result["gap_p99_ms"] = rounded(statistics.median(one.gap_p99_ms for one in samples))
        result["rate_ratio"] = rounded(statistics.median(one.rate_ratio for one in samples))
        for name in samples[0].extra:  # the worst of all trials
            result[name] = rounded(max(flat([one.extra[name] for one in samples])))
    kept = not verdict.problems and not error and bool(samples)
    for name, most in row.promise.items():
        kept = kept and result.get(name) is not None and result[name] <= most
    result |= {"promise": row.promise, "kept": kept}
    if verdict.problems:
        result["problems"] = sorted(set(verdict.problems))[:5]
    if error:
        result["error"] = error
    return result


def flat(values: Any) -> list[float]:
    if isinstance(values, list):
        return [number for value in values for number in flat(value)]
    return [values]


def rounded(value: Any) -> Any:
    return [rounded(one) for one in value] if isinstance(value, list) else round(value, 2)


def run_inside(key: str, options: argparse.Namespace) -> dict[str, Any]:
    """The row in a network namespace of its own, where links can really be cut."""
    arguments = [__file__, "--only", key, "--minutes", str(options.minutes)]
    arguments += ["--trials", str(options.trials)] if options.trials else []
    done = subprocess.run(
        network.python_inside(*arguments),
        stdout=subprocess.PIPE,
        text=True,
        env=network.environment_inside(),
        timeout=60 * options.minutes + 300,
    )
    if done.returncode:
        return {"trials": 0, "error": f"ended with status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="KEY", default=list(ROWS),
                        help=", ".join(ROWS))  # fmt: skip
    parser.add_argument("--trials", type=int, help="instead of 20 or 5, as the row has it")
    parser.add_argument("--minutes", type=float, default=15.0, help="most time for a row")
    options = parser.parse_args()
    # A terminated bench takes its services along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = {}
    for key in options.only:
        if not network.is_ours():
            say(f"--- {key}")
        results[key] = run_row(key, ROWS[key], options)
        if not network.is_ours():
            say(f"{key}: {json.dumps(results[key])}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
