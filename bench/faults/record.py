"""What has been measured for each row so far, in a file, so that an early end loses nothing?"""

import json
import os
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.faults.rig import Sample, percentile
from bench.faults.rows import Row
from tests.support.chaos.history import Verdict


@dataclass
class Record:
    """One row's trials, and what was found in all its requests, also those of void runs."""

    trials: list[dict[str, Any]] = field(default_factory=list)
    verdict: dict[str, Any] = field(default_factory=lambda: asdict(Verdict()))
    void_runs: int = 0
    given_up: int = 0  # trials that were void four times
    starts: int = 0  # of the row's mesh
    seconds: float = 0.0
    begun: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S"))
    error: str = ""  # of the last attempt; empty when it ended well
    skipped: str = ""

    def add(self, sample: Sample) -> None:
        self.trials.append(
            {
                "pauses_ms": [round(pause, 2) for pause in sample.pauses_ms],
                "gap_p99_ms": sample.gap_p99_ms,
                "rate_ratio": sample.rate_ratio,
                "extra": sample.extra,
            }
        )

    def count(self, verdict: Verdict) -> None:
        self.verdict = asdict(Verdict(**self.verdict) + verdict)
        self.verdict["problems"] = sorted(set(self.verdict["problems"]))[:50]

    def is_done(self, row: Row, trials: int) -> bool:
        return bool(self.skipped) or len(self.trials) + self.given_up >= (trials or row.trials)


class Records:
    """All rows' records; if there is a file, it is rewritten after each trial."""

    def __init__(self, path: Path | None, *, fresh: bool = False):
        """Raises ValueError if the file exists and is not ours."""
        self._path = path
        self.rows: dict[str, Record] = {}
        if path is None or fresh or not path.exists():
            return
        try:
            raw = json.loads(path.read_text())["rows"]
            self.rows = {key: Record(**fields) for key, fields in raw.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"--out {path}: not a file of this bench: {error}") from None

    def of(self, key: str) -> Record:
        return self.rows.setdefault(key, Record())

    def save(self, rows: dict[str, Row]) -> None:
        """Write the file atomically."""
        if self._path is None:
            return
        content = {
            "results": self.results(rows),
            "rows": {key: asdict(record) for key, record in self.rows.items()},
        }
        temporary = self._path.with_name(self._path.name + ".new")
        temporary.write_text(json.dumps(content))
        os.replace(temporary, self._path)

    def results(self, rows: dict[str, Row]) -> dict[str, Any]:
        """The results as the last line shows them, in the table's order."""
        return {key: summary(rows[key], self.rows[key]) for key in rows if key in self.rows}


def summary(row: Row, record: Record) -> dict[str, Any]:
    if record.skipped:
        return {"trials": 0, "skipped": record.skipped}
    verdict = Verdict(**record.verdict)
    trials = record.trials
    pauses = [pause for trial in trials for pause in trial["pauses_ms"]]
    result: dict[str, Any] = {
        "trials": len(trials),
        "void_runs": record.void_runs,
        "requests": verdict.requests,
        "failed_requests": verdict.failed,
        "wrong_tokens": verdict.wrong_tokens,
        "pause_p50_ms": rounded(percentile(pauses, 0.5)) if pauses else None,
        "pause_p99_ms": rounded(percentile(pauses, 0.99)) if pauses else None,
    }
    if trials:
        for name in ("gap_p99_ms", "rate_ratio"):
            result[name] = rounded(statistics.median(trial[name] for trial in trials))
        for name in trials[0]["extra"]:  # the worst of all trials
            result[name] = rounded(max(flat([trial["extra"][name] for trial in trials])))
    kept = not verdict.problems and not record.error and bool(trials)
    for name, most in row.promise.items():
        kept = kept and result.get(name) is not None and result[name] <= most
    for name, least in row.least.items():
        kept = kept and result.get(name) is not None and result[name] >= least
    result |= {
        "promise": row.promise,
        "least": row.least,
        "kept": kept,
        "seconds": round(record.seconds),
    }
    result |= {"starts": record.starts, "begun": record.begun}
    if verdict.problems:
        result["problems"] = verdict.problems[:5]
    if record.error:
        result["error"] = record.error
    return result


def flat(values: Any) -> list[float]:
    if isinstance(values, list):
        return [number for value in values for number in flat(value)]
    return [values]


def rounded(value: Any) -> Any:
    return [rounded(one) for one in value] if isinstance(value, list) else round(value, 2)
