"""How is a run drawn? Latency distributions, and throughput over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expertmesh.loadgen.record import Record
from expertmesh.loadgen.summary import METRICS, tokens_by_second

MISSING = (
    "--plot and --png need matplotlib, which is not installed: pip install matplotlib "
    "(in a checkout it comes with expertmesh[plot])"
)


def require_matplotlib() -> Any:
    """matplotlib's Figure, which needs no display. Raises ValueError saying how to install it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError(MISSING) from None
    return Figure


def save_figure(figure: Any, path: Path, flag: str) -> None:
    """Raises ValueError naming the flag if the file cannot be written."""
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ValueError(f"{flag} {path}: {error}") from None


def save_plot(records: Sequence[Record], path: Path, title: str) -> None:
    """Write a PNG. Raises ValueError without matplotlib or if the file cannot be written."""
    figure = require_matplotlib()(figsize=(11, 7), layout="constrained")
    done = [record for record in records if record.ok]
    figure.suptitle(title)
    grid = figure.add_gridspec(2, len(METRICS))
    for column, (name, (heading, samples_of)) in enumerate(METRICS.items()):
        samples = sorted(1000 * value for record in done for value in samples_of(record))
        axes = figure.add_subplot(grid[0, column])
        axes.plot(samples, [(i + 1) / len(samples) for i in range(len(samples))])
        axes.set_title(heading.partition(" (")[0], fontsize="medium")
        axes.set_xlabel(f"{name.upper()} (ms)")
        axes.set_ylim(0, 1.02)
        axes.set_ylabel("share of samples" if column == 0 else "")
        axes.grid(alpha=0.3)
    below = figure.add_subplot(grid[1, :])
    seconds = tokens_by_second(done)
    below.step(range(len(seconds)), seconds, where="post")
    below.set_xlabel("seconds since the start")
    below.set_ylabel("output tokens in that second")
    below.set_ylim(bottom=0)
    below.grid(alpha=0.3)
    save_figure(figure, path, "--plot")
