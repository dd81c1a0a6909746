"""How do token ids become text while they arrive one by one?"""

import codecs
from collections.abc import Callable


class IncrementalDetokenizer:
    """Turns ids into text, giving out only complete UTF-8 characters.

    Bytes that can never become valid UTF-8 give U+FFFD, one for each maximal invalid part, so
    the concatenation equals decoding all bytes at once with `errors="replace"`.
    """

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        """`bytes_of` gives an id's bytes, b"" for ids that leave no text."""
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Text that became certain with this id; often "" in the middle of a character."""
        return self._decoder.decode(self._bytes_of(token_id))

    def finish(self) -> str:
        """Text left over at the end: U+FFFD when the last character is incomplete, else ""."""
        return self._decoder.decode(b"", final=True)
