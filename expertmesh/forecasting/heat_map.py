"""How is a matrix of counts, layers x experts, shown in a terminal and as a picture?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expertmesh.loadgen.plot import require_matplotlib, save_figure

SHADES = " .:-=+*#%@"
MAX_COLUMNS = 128


def heat_rows(tokens: Sequence[Sequence[int]]) -> list[str]:
    """One line per layer. A character is one expert, or the mean of several neighbours if there
    are too many; the darkest is the hottest of its layer."""
    return [f"{layer:>4} |{_row(row)}|" for layer, row in enumerate(tokens)]


def _row(row: Sequence[int]) -> str:
    width = -(-len(row) // MAX_COLUMNS)
    cells = [row[at : at + width] for at in range(0, len(row), width)]
    means = [sum(cell) / len(cell) for cell in cells]
    top = max(means, default=0)
    if not top:
        return SHADES[0] * len(means)
    return "".join(SHADES[round(mean / top * (len(SHADES) - 1))] for mean in means)


def imbalance(row: Sequence[int]) -> float:
    """The hottest expert's count over the mean: 1 is even, 0 means that nothing was routed."""
    return max(row) * len(row) / sum(row) if sum(row) else 0.0


def save_heat_map(tokens: Sequence[Sequence[int]], path: Path) -> None:
    """Draw layers x experts relative to each layer's mean, and how uneven each layer is, as a PNG.

    Raises ValueError without matplotlib or if the file cannot be written.
    """
    num_layers, num_experts = len(tokens), len(tokens[0])
    height = min(14.0, max(3.0, 1.5 + 0.16 * num_layers))
    figure = require_matplotlib()(figsize=(12, height), layout="constrained")
    figure.suptitle(f"{sum(map(sum, tokens)):,} activations, relative to the mean of each layer")
    relative = [
        [count * len(row) / sum(row) if sum(row) else 0.0 for count in row] for row in tokens
    ]
    heat, beside = figure.subplots(1, 2, width_ratios=(6, 1), sharey=True)
    image = heat.imshow(
        relative,
        aspect="auto",
        interpolation="nearest",
        cmap="inferno",
        vmin=0,
        vmax=_top(relative),
    )
    heat.set_xlabel(f"expert (of {num_experts})")
    heat.set_ylabel("layer")
    for axis, count in ((heat.xaxis, num_experts), (heat.yaxis, num_layers)):
        axis.set_major_locator(_whole_numbers(count))
    figure.colorbar(image, ax=heat, label="times the mean", extend="max", pad=0.01)
    beside.barh(range(num_layers), [imbalance(row) for row in tokens], height=0.8)
    beside.axvline(1, color="gray", linewidth=0.8)
    beside.set_xlabel("hottest, x mean")
    save_figure(figure, path, "--png")


def _top(relative: Sequence[Sequence[float]]) -> float:
    """End of the colour scale: a high percentile, so that one expert does not darken the rest."""
    values = sorted(value for row in relative for value in row)
    return max(2.0, values[min(len(values) - 1, int(0.995 * len(values)))])


def _whole_numbers(count: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=min(16, max(1, count)), integer=True)
