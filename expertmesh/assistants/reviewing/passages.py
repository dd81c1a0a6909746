"""Which pieces of code is a model shown, and which of their lines can it report?

A whole file, or what a diff changes in one; long ones in pieces that end between functions.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

MAX_FILE_BYTES = 4 << 20
MAX_PIECE_CHARS = 24_000
_MAX_COLUMNS = 2000
"""A longer line is shown up to here."""
_HUNK = re.compile(r"^@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_LANGUAGES = {".py": "python", ".js": "javascript", ".ts": "typescript", ".sh": "sh", ".c": "c"}


@dataclass(frozen=True)
class Row:
    """One line."""

    number: int | None
    """In the file as it is now; None for one that the diff removes."""
    text: str
    mark: str = ""
    """In a diff "+", "-" or " "."""

    def shown(self) -> str:
        text = self.text if len(self.text) <= _MAX_COLUMNS else self.text[:_MAX_COLUMNS] + " ..."
        number = "" if self.number is None else str(self.number)
        return f"{number:>6}{' ' if self.mark else ''}{self.mark}\t{text}"


@dataclass(frozen=True)
class Passage:
    """Lines of one file."""

    file: str
    rows: tuple[Row, ...]

    @property
    def is_diff(self) -> bool:
        return any(row.mark for row in self.rows)

    @property
    def reportable(self) -> dict[int, str]:
        """Number -> text of the lines that findings may name: in a diff those that it adds."""
        return {row.number: row.text for row in self.rows if row.number and row.mark in ("", "+")}

    @property
    def place(self) -> str:
        numbers = [row.number for row in self.rows if row.number is not None]
        return f"{self.file}:{numbers[0]}-{numbers[-1]}" if numbers else self.file

    def block(self) -> str:
        """Its lines with their numbers, in a fence that none of them ends."""
        text = "\n".join(row.shown() for row in self.rows)
        return fenced(text, _LANGUAGES.get(Path(self.file).suffix, ""))

    def halves(self) -> tuple["Passage", "Passage"]:
        """Of at least two lines."""
        middle = len(self.rows) // 2
        return replace(self, rows=self.rows[:middle]), replace(self, rows=self.rows[middle:])


def fenced(text: str, language: str = "") -> str:
    """The text as a block of Markdown, whatever marks are in it."""
    longest = max((len(one) for one in re.findall(r"`{3,}", text)), default=2)
    marks = "`" * (longest + 1)
    return f"{marks}{language}\n{text.rstrip(chr(10))}\n{marks}"


def read_text(path: Path) -> str:
    """Raises ValueError in one line for what is no text of a moderate size."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise ValueError(f"{path}: a binary file, with zero bytes")
    return text


def of_text(text: str, name: str) -> Passage:
    """The whole of a file."""
    lines = re.split(r"\r\n|\n|\r", text)
    if lines and not lines[-1]:
        lines.pop()
    return Passage(name, tuple(Row(number, line) for number, line in enumerate(lines, 1)))


def of_diff(diff: str) -> list[Passage]:
    """What a unified diff changes, file by file; files that it only removes lines from are left
    out, as binary ones are. Raises ValueError for a hunk that is no hunk."""
    found: dict[str, list[Row]] = {}
    file, number, old_left, new_left = "", 0, 0, 0
    for line in diff.split("\n"):
        mark = line[:1] or " "  # some tools cut the blank at the end of an empty line
        if new_left > 0 and mark in "+ ":
            found[file].append(Row(number, line[1:], mark))
            number, new_left, old_left = number + 1, new_left - 1, old_left - (mark == " ")
        elif old_left > 0 and mark == "-":
            found[file].append(Row(None, line[1:], mark))
            old_left -= 1
        elif line.startswith("+++ "):
            file = _name(line.removeprefix("+++ "))
            found.setdefault(file, [])
        elif hunk := _HUNK.match(line):
            if not file:
                raise ValueError("the diff has a hunk before the name of a file (+++ b/NAME)")
            old_left, number, new_left = int(hunk[1] or 1), int(hunk[2]), int(hunk[3] or 1)
    passages = (Passage(name, tuple(rows)) for name, rows in found.items())
    return [one for one in passages if one.reportable]


def _name(text: str) -> str:
    """Of a file in a diff: b/NAME, with a tab and a date behind it in some."""
    name = text.partition("\t")[0].strip().strip('"')
    return name.removeprefix("b/")


def pieces(passage: Passage, max_chars: int = MAX_PIECE_CHARS) -> Iterator[Passage]:
    """Of at most so many characters each, but of at least one line."""
    rows: Sequence[Row] = passage.rows
    while rows:
        end, size = 0, 0
        while end < len(rows) and (not end or size + len(rows[end].shown()) < max_chars):
            size += len(rows[end].shown()) + 1
            end += 1
        if end < len(rows):
            end = _end_between_functions(rows, end)
        piece = replace(passage, rows=tuple(rows[:end]))
        if piece.reportable:
            yield piece
        rows = rows[end:]


def _end_between_functions(rows: Sequence[Row], end: int) -> int:
    """The last line in the second half that begins something at the left margin, or `end`."""
    for place in range(end, end // 2, -1):
        text = rows[place].text
        if text[:1].strip() and text[:1] not in "#)]}" and not rows[place - 1].text.strip():
            return place
    return end
