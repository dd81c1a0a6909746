"""How is the result shown? In the lines of vLLM's benchmark, with ExpertMesh's own below."""

from typing import Any

from expertmesh.loadgen.summary import METRICS

_WIDTH = 50

Row = tuple[str, str, int | None]
"""(label, field, decimals); decimals None: a share, shown in percent."""

_COUNTS: tuple[Row, ...] = (
    ("Successful requests:", "completed", 0),
    ("Failed requests:", "failed", 0),
    ("Interrupted requests:", "cancelled", 0),
    ("Maximum request concurrency:", "max_concurrency", 0),
    ("Request rate configured (RPS):", "request_rate", 2),
    ("Benchmark duration (s):", "duration", 2),
    ("Total input tokens:", "total_input_tokens", 0),
    ("Total generated tokens:", "total_output_tokens", 0),
    ("Request throughput (req/s):", "request_throughput", 2),
    ("Request goodput (req/s):", "request_goodput", 2),
    ("Output token throughput (tok/s):", "output_throughput", 2),
    ("Peak output token throughput (tok/s):", "max_output_tokens_per_s", 2),
    ("Peak concurrent requests:", "max_concurrent_requests", 0),
    ("Total token throughput (tok/s):", "total_token_throughput", 2),
)
_OWN: tuple[Row, ...] = (
    ("Prefix cache hit rate (%):", "prefix_cache_hit_rate", None),
    ("Time in expert RPC (% of steps):", "expert_rpc_share", None),
    ("  of it on the network (% of steps):", "expert_network_share", None),
)

_OWN_OFFLINE: tuple[Row, ...] = (
    ("Prefix cache hit rate (%):", "prefix_cache_hit_rate", None),
    ("Time in experts (% of steps):", "expert_rpc_share", None),
)
"""In one process there is no RPC and no network."""


def report(result: dict[str, Any], title: str) -> str:
    """The whole table as text, without unknown values."""
    lines = [_rule(f" {title} ", "=")]
    lines += _rows(result, _COUNTS)
    for name, (heading, _) in METRICS.items():
        keys = [key for key in result if key.endswith(f"_{name}_ms") and not key.startswith("std")]
        if all(result[key] is None for key in keys):
            continue
        lines.append(_rule(heading, "-"))
        short = name.upper()
        rows = [(f"{key.split('_')[0].capitalize()} {short} (ms):", key, 2) for key in keys]
        lines += _rows(result, rows)
    own = _rows(result, _OWN_OFFLINE if result.get("bench") == "offline" else _OWN)
    if own:
        lines += [_rule("ExpertMesh", "-"), *own]
    lines.append("=" * _WIDTH)
    return "\n".join(lines)


def _rows(result: dict[str, Any], rows: Any) -> list[str]:
    lines = []
    for label, key, decimals in rows:
        value = result.get(key)
        if value is None or (key == "cancelled" and value == 0):
            continue
        shown = f"{100 * value:.1f}" if decimals is None else f"{value:.{decimals}f}"
        lines.append(f"{label:<39}{shown:>{_WIDTH - 39}}")
    return lines


def _rule(text: str, fill: str) -> str:
    return f"{text:{fill}^{_WIDTH}}"
