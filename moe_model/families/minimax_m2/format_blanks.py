"""Which blanks at the beginning of a text belong to the format, not to the text?"""


class FormatBlanks:
    """Drops what the chat template writes between the parts, however the text is cut."""

    def __init__(self) -> None:
        self._newlines = 0
        self._all = False

    def expect(self, *, newlines: int = 0, any_number: bool = False) -> None:
        """Drop newlines, or blanks of any kind, at the beginning of the text that comes next."""
        self._newlines, self._all = newlines, any_number

    def strip(self, text: str) -> str:
        """The text without them."""
        if self._all:
            text = text.lstrip()
            self._all = not text
        while self._newlines and text.startswith("\n"):
            text = text[1:]
            self._newlines -= 1
        if text:
            self._newlines = 0
        return text
