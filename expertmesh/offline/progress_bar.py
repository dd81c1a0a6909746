"""How is the progress of a batch shown? Prompts done, tokens per second in and out."""

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_REFRESH_S = 0.1


def wants_bar(use_tqdm: Any) -> bool:
    """Whether to show a bar; None: if standard error is a terminal."""
    return sys.stderr.isatty() if use_tqdm is None else bool(use_tqdm)


class BatchProgress:
    """A line on standard error while a batch runs; nothing unless `shown`."""

    def __init__(self, num_prompts: int, *, shown: bool):
        self._shown = shown
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._bar.add_task("prompts", total=num_prompts, speed="")
        self._started_s = self._drawn_s = time.monotonic()
        self._done = self._tokens_in = self._tokens_out = 0

    def __enter__(self) -> "BatchProgress":
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._draw()
        self._bar.__exit__(kind, error, trace)

    def tokens(self, count: int) -> None:
        self._tokens_out += count
        if self._shown and time.monotonic() - self._drawn_s > _REFRESH_S:
            self._draw()

    def prompt_done(self, num_prompt_tokens: int) -> None:
        self._done += 1
        self._tokens_in += num_prompt_tokens

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        elapsed_s = max(1e-6, self._drawn_s - self._started_s)
        speed = (
            f"in {self._tokens_in / elapsed_s:,.1f} tokens/s, "
            f"out {self._tokens_out / elapsed_s:,.1f} tokens/s"
        )
        self._bar.update(self._task, completed=self._done, speed=speed)
