"""How is a forecast drawn? The memory of each host, and where each layer is."""

from pathlib import Path

from expertmesh.forecasting.forecast import Forecast
from expertmesh.loadgen.plot import require_matplotlib, save_figure

GIB = 2**30


def save_forecast(made: Forecast, path: Path, title: str) -> None:
    """Write a PNG. Raises ValueError without matplotlib or if the file cannot be written."""
    figure = require_matplotlib()(figsize=(11, 5), layout="constrained")
    figure.suptitle(f"{title}: {made.replicas} holder(s) of each expert, {made.weight_format}")
    names = [one.name for one in made.machines]
    memory, where = figure.subplots(1, 2, width_ratios=(1, 2))
    held = [made.held_bytes(one) / GIB for one in made.machines]
    free = [
        max(0.0, one.memory_bytes / GIB - used)
        for one, used in zip(made.machines, held, strict=True)
    ]
    memory.barh(names, held, label="experts")
    memory.barh(names, free, left=held, label="other memory", alpha=0.3)
    memory.invert_yaxis()
    memory.set_xlabel("GiB")
    memory.legend()
    counts = [
        [made.plan.hold[name].count(layer) for layer in range(made.config.num_layers)]
        for name in names
    ]
    image = where.imshow(counts, aspect="auto", vmin=0, vmax=made.config.num_experts)
    where.set_xlabel("layer")
    where.set_yticks(range(len(names)), names)
    figure.colorbar(image, ax=where, label="experts of the layer held")
    save_figure(figure, path, "--plot")
