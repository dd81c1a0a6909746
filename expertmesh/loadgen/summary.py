"""How are the measurements summarised? Under the field names of vLLM's benchmark."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from statistics import fmean, median, pstdev
from typing import Any

from expertmesh.loadgen.record import Record

METRICS: dict[str, tuple[str, Callable[[Record], list[float]]]] = {
    "ttft": ("Time to First Token", lambda r: [r.ttft_s]),
    "tpot": (
        "Time per Output Token (excl. 1st token)",
        lambda r: [] if r.tpot_s is None else [r.tpot_s],
    ),
    "itl": ("Inter-token Latency", lambda r: r.itl_s),
    "e2el": ("End-to-end Latency", lambda r: [r.e2el_s]),
}
"""Short name -> (title, function that gives a request's samples in seconds)."""

EXPERT_PARTS = ("network_ms", "pool_queue_ms", "pool_compute_ms")
STEP_PARTS = ("attention_ms", *EXPERT_PARTS, "sampling_ms")


def summarise(
    records: Sequence[Record],
    *,
    percentiles: Sequence[float] = (99.0,),
    goodput: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Everything that the report shows. Rates are over the time from first start to last arrival.

    `goodput`: metric -> most milliseconds; a request is good if it keeps all of these limits.
    """
    done = [record for record in records if record.ok]
    duration_s = max(r.ended_s for r in done) - min(r.started_s for r in done) if done else 0.0
    total_in = sum(record.prompt_tokens for record in done)
    total_out = sum(record.output_tokens for record in done)
    result: dict[str, Any] = {
        "completed": len(done),
        "failed": sum(record.error is not None for record in records),
        "cancelled": sum(record.cancelled for record in records),
        "duration": duration_s,
        "total_input_tokens": total_in,
        "total_output_tokens": total_out,
        "request_throughput": _rate(len(done), duration_s),
        "output_throughput": _rate(total_out, duration_s),
        "total_token_throughput": _rate(total_in + total_out, duration_s),
        "max_output_tokens_per_s": peak_tokens_per_s(done),
        "max_concurrent_requests": peak_concurrency(done),
        "prefix_cache_hit_rate": hit_rate(done),
        "expert_rpc_share": time_share(done, EXPERT_PARTS),
        "expert_network_share": time_share(done, ("network_ms",)),
    }
    for name, (_, samples_of) in METRICS.items():
        samples_ms = [1000 * value for record in done for value in samples_of(record)]
        result |= spread(name, samples_ms, percentiles)
    if goodput:
        good = sum(_keeps_to(record, goodput) for record in done)
        result["request_goodput"] = _rate(good, duration_s)
    return result


def spread(name: str, samples_ms: Sequence[float], percentiles: Sequence[float]) -> dict[str, Any]:
    """Mean, median, std and percentiles of one metric; None without samples."""
    values: list[tuple[str, Callable[[Sequence[float]], float]]] = [
        (f"mean_{name}_ms", fmean),
        (f"median_{name}_ms", median),
        (f"std_{name}_ms", pstdev),
        *((f"p{percent:g}_{name}_ms", partial(percentile, percent)) for percent in percentiles),
    ]
    return {key: value(samples_ms) if samples_ms else None for key, value in values}


def percentile(percent: float, samples: Sequence[float]) -> float:
    """Linear between the two nearest ranks, like numpy's default."""
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def peak_concurrency(records: Sequence[Record]) -> int:
    """Most requests open at the same time."""
    # At the same instant an end counts before a start, because it makes room for it.
    edges = [(r.started_s, 1) for r in records] + [(r.ended_s, -1) for r in records]
    edges.sort()
    return max(accumulate(change for _, change in edges), default=0)


def tokens_by_second(records: Sequence[Record]) -> list[int]:
    """Output tokens in each second since the first start."""
    if not records:
        return []
    start_s = min(record.started_s for record in records)
    seconds = [0] * (int(max(record.ended_s for record in records) - start_s) + 1)
    for record in records:
        for when_s, tokens in record.increments:
            seconds[int(when_s - start_s)] += tokens
    return seconds


def peak_tokens_per_s(records: Sequence[Record]) -> int:
    """Most output tokens within any second."""
    arrivals = sorted(increment for record in records for increment in record.increments)
    most = inside = first = 0
    for when_s, tokens in arrivals:
        inside += tokens
        while arrivals[first][0] <= when_s - 1.0:
            inside -= arrivals[first][1]
            first += 1
        most = max(most, inside)
    return most


def hit_rate(records: Sequence[Record]) -> float | None:
    """Prompt tokens from the prefix cache over all prompt tokens; None if unknown."""
    told = [record for record in records if record.cached_tokens is not None]
    total = sum(record.prompt_tokens for record in told)
    return sum(record.cached_tokens or 0 for record in told) / total if total else None


def time_share(records: Sequence[Record], parts: Sequence[str]) -> float | None:
    """Share of the steps' time that `parts` took, as the server says; None if unknown."""
    told = [record.timings for record in records if record.timings]
    total = sum(timings.get(part, 0.0) for timings in told for part in STEP_PARTS)
    taken = sum(timings.get(part, 0.0) for timings in told for part in parts)
    return taken / total if total else None


def _rate(count: int, duration_s: float) -> float:
    return count / duration_s if duration_s > 0 else 0.0


def _keeps_to(record: Record, limits_ms: dict[str, float]) -> bool:
    return all(
        1000 * max(METRICS[name][1](record), default=0.0) <= limit_ms
        for name, limit_ms in limits_ms.items()
    )
