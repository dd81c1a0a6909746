"""How do the ids of an answer become text, with stop strings? By the gateway's own classes."""

from collections.abc import Callable, Sequence

from gateway.text.choice_text import StopFilter
from moe_model.text.detokenizer import IncrementalDetokenizer


class OutputText:
    """The text of one answer, returned as soon as it is certain."""

    def __init__(
        self, bytes_of: Callable[[int], bytes], stops: Sequence[str], *, include_stop: bool
    ):
        """`bytes_of`: b"" for ids without text. `include_stop`: keep the stop string or token."""
        self._detokenizer = IncrementalDetokenizer(bytes_of)
        self._filter = StopFilter(stops)
        self._include_stop = include_stop

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text, if any."""
        return self._filter.matched

    def push(self, token_id: int, *, is_stop: bool = False) -> str:
        """Text that this id makes certain; `is_stop`: it is the stop id that ends the answer."""
        if is_stop and not self._include_stop:
            return ""
        return self._feed(self._detokenizer.push(token_id))

    def finish(self) -> str:
        """Text held back until now; call this once, after the last id."""
        if self.stop_string is not None:
            return ""
        text = self._feed(self._detokenizer.finish())
        return text + self._filter.flush()

    def _feed(self, text: str) -> str:
        safe = self._filter.feed(text)
        if self.stop_string is not None and self._include_stop:
            return safe + self.stop_string
        return safe
