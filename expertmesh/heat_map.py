"""How are counts of a layers x experts matrix shown in a terminal?"""

from collections.abc import Sequence

SHADES = " .:-=+*#%@"
MAX_COLUMNS = 128


def heat_rows(tokens: Sequence[Sequence[int]]) -> list[str]:
    """One line per layer; a character is one expert, or several neighbours' mean where there are
    more than fit. The darkest is the layer's own hottest."""
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
    """The hottest expert's tokens over the mean; 1 is even, 0 means nothing was routed."""
    return max(row) * len(row) / sum(row) if sum(row) else 0.0
