"""How is one place of a text replaced, and no other?"""

import re
from dataclasses import dataclass

_SHOWN_PLACES = 5


class EditError(ValueError):
    """The edit cannot be made; the text says what to do instead."""


@dataclass(frozen=True)
class Decoded:
    """A file's text, with its lines ended by \\n alone."""

    text: str
    had_crlf: bool
    """Whether every line ended with \\r\\n."""


@dataclass(frozen=True)
class Edited:
    """The new text, and the line, from 1, in which it begins to differ."""

    text: str
    line: int


def decoded(data: bytes, path: str) -> Decoded:
    """Raises EditError if it is not text in UTF-8."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EditError(f"{path}: not text in UTF-8 (byte {error.start})") from None
    if "\0" in text:
        raise EditError(f"{path}: not a text file")
    crlf = text.count("\r\n")
    if crlf and crlf == text.count("\n") == text.count("\r"):
        return Decoded(text.replace("\r\n", "\n"), True)
    return Decoded(text, False)


def encoded(text: str, like: Decoded) -> bytes:
    """With the line ends that the file had."""
    if like.had_crlf:
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    return text.encode("utf-8", "surrogatepass")


def replaced_once(text: str, old: str, new: str, path: str) -> Edited:
    """Raises EditError unless `old` occurs exactly once, overlapping places counted."""
    if not old:
        raise EditError("old_text is empty: use append, or write for a new file")
    if old == new:
        raise EditError("new_text is old_text: nothing would change")
    places = _places(text, old)
    if len(places) > 1:
        lines = ", ".join(str(_line(text, one)) for one in places[:_SHOWN_PLACES])
        raise EditError(
            f"old_text occurs {len(places)} times in {path} (lines {lines}): add lines around it "
            "until it is unique"
        )
    if not places:
        raise EditError(f"old_text does not occur in {path}{_near(text, old)}")
    at = places[0]
    return Edited(text[:at] + new + text[at + len(old) :], _line(text, at))


def _places(text: str, old: str) -> list[int]:
    found, at = [], text.find(old)
    while at >= 0:
        found.append(at)
        at = text.find(old, at + 1)
    return found


def _near(text: str, old: str) -> str:
    """Where it would match if white space did not count, or where its first line is."""
    words = [re.escape(word) for word in old.split()]
    loose = re.search(r"\s+".join(words), text) if words else None
    if loose:
        return f"; line {_line(text, loose.start())} differs from it in white space only"
    first = next((line.strip() for line in old.splitlines() if line.strip()), "")
    at = text.find(first) if first else -1
    if at >= 0:
        return f"; its first line is in line {_line(text, at)}, but what follows differs: view it"
    return ": view the file to see what is there"


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
