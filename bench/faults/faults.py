"""What does each fault cost, in pauses and wrong tokens of 8 streams?

Real processes serve a tiny float32 model, layer-striped over pools with two replicas each unless
the row says otherwise. Every request of every run, void ones included, is checked: each token once,
in order, equal to the oracle's; one terminal event; usage.

The pause of a stream is its longest gap between tokens from the fault on (for the first token of a
new request, from its sending), minus the 99th percentile of the gaps before the fault in the same
run; pooled over streams and trials. A trial is void if a gap before the fault exceeds that
percentile by more than the row's limit; it is then repeated, at most 3 times.

With --out every trial is written to that file as soon as it is done: the same command, given again,
continues with the rows that lack trials, and the results of all runs are one table. A row whose
mesh fails is started again, twice. No row takes longer than --minutes, and all together no longer
than --total-minutes.

Progress on standard error; the last line on standard output is JSON, by row.

    .venv/bin/python bench/faults/faults.py --out faults.json
        [--only KEY ...] [--trials N] [--total-minutes 40]
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.faults.record import Record, Records, rounded
from bench.faults.rig import Sample, say, work_folder
from bench.faults.rows import ROWS, Row
from tests.support.chaos import network

MAX_REPEATS = 3
MAX_STARTS = 3
"""Of a row's mesh in one run; each failure of the mesh (a wait that timed out) uses one."""
STOP_S = 30.0


class OutOfTime(Exception):
    """The row's time ended during a trial."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises OutOfTime inside the block when it takes longer, whatever it waits for."""

    def end(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_row(key: str, row: Row, records: Records, trials: int, until_s: float) -> None:
    """Run one row until it has its trials or its time is over; results go into its record."""
    record = records.of(key)
    record.error = ""
    for attempt in range(MAX_STARTS):
        started_s = time.monotonic()
        record.starts += 1
        try:
            with at_most(until_s - started_s), work_folder() as folder:
                _run_trials(key, row, records, trials, folder)
            record.error = ""
        except OutOfTime:
            record.error = "stopped: its time was over"
        except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as failure:
            record.error = f"{type(failure).__name__}: {failure}"[-1500:]
        record.seconds += time.monotonic() - started_s
        records.save(ROWS)
        if not record.error:
            return
        say(f"{key}: start {attempt + 1}: {record.error}")
        if time.monotonic() + STOP_S > until_s:
            return


def _run_trials(key: str, row: Row, records: Records, trials: int, folder: Path) -> None:
    record = records.of(key)
    repeats = 0
    with contextlib.closing(row.run(folder)) as samples:
        for sample in samples:
            record.count(sample.verdict)
            is_void = sample.control_pause_ms > row.control_ms
            record.void_runs += is_void
            number = f"{len(record.trials) + 1}/{trials or row.trials}"
            say(f"{key} {number}: {describe(sample)}{', void' * is_void}")
            for problem in sample.verdict.problems[:3]:
                say(f"    {problem}")
            if not is_void:
                record.add(sample)
                repeats = 0
            elif repeats < MAX_REPEATS:
                repeats += 1
            else:
                record.given_up += 1  # four void runs: this trial has no value
                repeats = 0
            records.save(ROWS)
            if record.is_done(row, trials):
                return


def describe(sample: Sample) -> str:
    extra = ", ".join(f"{name} {rounded(value)}" for name, value in sample.extra.items())
    return (
        f"longest pause {max(sample.pauses_ms, default=0):.0f} ms, "
        f"gap p99 {sample.gap_p99_ms:.0f}, "
        f"control {sample.control_pause_ms:.0f}, rate x {sample.rate_ratio:.2f}, "
        f"{sample.verdict.failed} failed of {sample.verdict.requests}, "
        f"{sample.verdict.wrong_tokens} wrong tokens; {extra}"
    )


def run_inside(key: str, out: Path, trials: int, minutes: float) -> str:
    """Run the row in its own network namespace, where links can really be cut; into the same file.

    Returns what went wrong with the program itself, or an empty text.
    """
    arguments = [__file__, "--only", key, "--out", str(out), "--minutes", str(minutes)]
    arguments += ["--trials", str(trials)] if trials else []
    inside = subprocess.Popen(
        network.python_inside(*arguments),
        stdout=subprocess.DEVNULL,
        env=network.environment_inside(),
    )
    try:
        status = inside.wait(60 * minutes + 2 * STOP_S)
    except subprocess.TimeoutExpired:
        status = "none: it did not stop by itself"
    finally:
        network.stop(inside, STOP_S)
    return "" if status == 0 else f"the program in the namespace ended with status {status}"


def run(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Run all requested rows that lack trials."""
    records = Records(out, fresh=options.fresh)
    records.save(ROWS)
    ends_s = time.monotonic() + 60 * options.total_minutes
    for key in options.only:
        row, trials = ROWS[key], options.trials or 0
        record = records.of(key)
        record.skipped = ""
        if record.is_done(row, trials):
            say(f"--- {key}: has its {len(record.trials)} trials")
            continue
        until_s = min(ends_s, time.monotonic() + 60 * options.minutes)
        if until_s - time.monotonic() < STOP_S:
            record.error = record.error or "not run: the time for all rows was over"
            continue
        if row.own_network and not network.is_ours():
            reason = network.unavailable()
            if not reason:
                say(f"--- {key}, in a network namespace")
                problem = run_inside(key, out, trials, (until_s - time.monotonic()) / 60)
                records = Records(out)
                if problem:
                    records.of(key).error = problem
                continue
            if key != "blackhole":
                records.rows[key] = Record(skipped=reason)
                continue
            say(f"{key}: {reason}; a proxy that passes nothing stands in for the dropped link")
        say(f"--- {key}")
        run_row(key, row, records, trials, until_s)
        say(f"{key}: {json.dumps(records.results(ROWS)[key])}")
    records.save(ROWS)
    return records.results(ROWS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="KEY", default=list(ROWS),
                        help=", ".join(ROWS))  # fmt: skip
    parser.add_argument("--trials", type=int, help="instead of 20 or 5, as the row has it")
    parser.add_argument("--minutes", type=float, default=15.0, help="most time for a row")
    parser.add_argument("--total-minutes", type=float, default=180.0, help="most time for all rows")
    parser.add_argument("--out", type=Path, help="file to keep and go on from")
    parser.add_argument("--fresh", action="store_true", help="forget what is in --out")
    options = parser.parse_args()
    # When the bench is terminated, its services end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with work_folder() as folder:
        try:
            results = run(options, (options.out or folder / "faults.json").absolute())
        except ValueError as error:
            sys.exit(str(error))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
