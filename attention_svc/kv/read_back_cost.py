"""Is it cheaper to read blocks back from host memory than to compute them again? As measured."""

from dataclasses import dataclass

_KEPT = 0.9
"""What earlier measurements count for when another one is made: about the last ten decide."""


@dataclass(slots=True)
class _Rate:
    """Seconds per thing, where a measurement of many things counts more than one of few."""

    seconds: float = 0.0
    things: float = 0.0

    def note(self, things: int, seconds: float) -> None:
        self.seconds = _KEPT * self.seconds + seconds
        self.things = _KEPT * self.things + things

    @property
    def seconds_each(self) -> float | None:
        return self.seconds / self.things if self.things else None


class ReadBackCost:
    """Of one engine. Both ways over the bus count as copying, so that a rate is always known."""

    def __init__(self) -> None:
        self._copying, self._computing = _Rate(), _Rate()

    def note_copied(self, num_blocks: int, seconds: float) -> None:
        """Blocks went to host memory or came back."""
        self._copying.note(num_blocks, seconds)

    def note_computed(self, num_tokens: int, seconds: float) -> None:
        """A step with prompts in it ran."""
        self._computing.note(num_tokens, seconds)

    def pays(self, num_blocks: int, num_tokens: int) -> bool:
        """Whether copying so many blocks takes less time than computing so many positions.

        True until both were measured: a block is far smaller than what it was computed from.
        """
        copying, computing = self._copying.seconds_each, self._computing.seconds_each
        if copying is None or computing is None:
            return True
        return num_blocks * copying < num_tokens * computing
