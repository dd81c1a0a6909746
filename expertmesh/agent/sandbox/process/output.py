"""What is kept of a command's output? Its head and its tail."""

import codecs
from collections.abc import Callable


class KeptOutput:
    """Takes one stream in pieces, keeps at most `size_bytes` of it, and counts the rest."""

    def __init__(self, size_bytes: int, on_output: Callable[[str], None] | None = None):
        self._head_bytes = size_bytes // 2
        self._tail_bytes = size_bytes - self._head_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._on_output = on_output
        self.total_bytes = 0

    def add(self, piece: bytes) -> None:
        """Take the next piece, of any size; `on_output` gets its text."""
        self.total_bytes += len(piece)
        room = self._head_bytes - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:]
        if len(self._tail) > 2 * self._tail_bytes:  # seldom, since it moves what stays
            del self._tail[: -self._tail_bytes]
        self._tell(self._decoder.decode(piece))

    def finish(self) -> None:
        """The stream has ended, perhaps within a character."""
        self._tell(self._decoder.decode(b"", final=True))

    def _tell(self, text: str) -> None:
        if text and self._on_output is not None:
            self._on_output(text)

    @property
    def is_clipped(self) -> bool:
        return self.total_bytes > self._head_bytes + self._tail_bytes

    @property
    def text(self) -> str:
        """Head and tail as UTF-8, with a line between them that says how much is missing."""
        if not self.is_clipped:
            return (self._head + self._tail).decode("utf-8", "replace")
        missing = self.total_bytes - self._head_bytes - self._tail_bytes
        head = self._head.decode("utf-8", "replace")
        tail = self._tail[-self._tail_bytes :].decode("utf-8", "replace")
        return f"{head}\n[... {missing} bytes left out ...]\n{tail}"
