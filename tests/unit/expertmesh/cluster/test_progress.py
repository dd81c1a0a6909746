"""In a pipe, loading is told in quarters, with how fast it goes."""

import io

from rich.console import Console

from expertmesh.cluster.progress import PlainProgress


def test_a_line_comes_with_each_quarter_and_says_the_rate() -> None:
    shown = io.StringIO()
    progress = PlainProgress(Console(file=shown, width=200))
    for percent in range(0, 100, 5):
        progress.update("pool-0", f"loading, {percent} %: {percent} of 100 GB, 2 GB/s, 9 s left")
    assert shown.getvalue().splitlines() == [
        f"pool-0: loading, {percent} %: {percent} of 100 GB, 2 GB/s, 9 s left"
        for percent in (0, 25, 50, 75)
    ]
