"""How is a text file written: in which encoding, with which delimiter, with names at the top?

Everything is tried on the beginning of the file. `csv.Sniffer` takes any letter for a delimiter if
it is frequent enough; here only those are tried that files have, with `csv.reader` itself.
"""

import codecs
import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from expertmesh.assistants.tables.kinds import MISSING, Kind, kind_of

HEAD_BYTES = 256 << 10
DELIMITERS = (",", ";", "\t", "|")
_SNIFFED_ROWS = 200
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = (
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"PK\x03\x04", "a ZIP archive: unpack it first (a workbook must be called .xlsx)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls): save it as .xlsx or CSV"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3", "an SQLite database: export a table as CSV"),
)


class TableError(ValueError):
    """This is no table that we can read; the message says why, for people."""


@dataclass(frozen=True)
class Encoding:
    """How bytes become text."""

    name: str
    errors: str = "strict"
    note: str = ""
    """What is doubtful about it; for people."""


def refuse_binary(head: bytes) -> None:
    """Raises TableError for what is no text, with what it is instead."""
    for magic, what in _BINARY:
        if head.startswith(magic):
            raise TableError(f"this is {what}")
    if not any(head.startswith(bom) for bom, _ in _BOMS) and b"\0" in head:
        raise TableError("this is no text file: it holds zero bytes")


def encoding_of(head: bytes, first_bad_byte: int | None, told: str | None = None) -> Encoding:
    """`first_bad_byte`: where the file stops being UTF-8; None if it is. `told`: by the user.

    Raises TableError for an encoding that does not exist.
    """
    if told is not None:
        try:
            name = codecs.lookup(told).name
            "".encode(name)  # a codec of bytes, such as hex, is none of text
        except (LookupError, UnicodeError, TypeError):
            raise TableError(f"encoding {told!r}: there is none of this name") from None
        return Encoding(name, "replace")
    for bom, name in _BOMS:
        if head.startswith(bom):
            return Encoding(name, "replace")
    if first_bad_byte is None:
        return Encoding("utf-8")
    where = f"not UTF-8 (from byte {first_bad_byte:,} on)"
    if first_bad_byte > 0 and len(_foreign(head[:first_bad_byte].decode("utf-8", "ignore"))) >= 10:
        return Encoding("utf-8", "replace", f"not all of it is UTF-8: see byte {first_bad_byte:,}")
    if _is_chinese(head):
        return Encoding("gb18030", "replace", f"{where}: read as GB 18030; --encoding says another")
    return Encoding("cp1252", "replace", f"{where}: read as cp1252; --encoding says another")


def _foreign(text: str) -> str:
    return "".join(one for one in text if not one.isascii())


def _is_chinese(head: bytes) -> bool:
    """Whether all that is not ASCII makes characters of GB 2312, as Western letters seldom do."""
    decoder = codecs.getincrementaldecoder("gb2312")()
    try:
        found = _foreign(decoder.decode(head))
    except UnicodeDecodeError:
        return False
    return sum("\u4e00" <= one <= "\u9fff" for one in found) >= len(found) / 2 > 0


def delimiter_of(head: str, *, prefers_tab: bool = False) -> str:
    """The delimiter by which most rows have the same number of cells, more than one."""
    best, best_score = ("\t" if prefers_tab else ","), (0.0, 0)
    for delimiter in DELIMITERS:
        widths = Counter(len(row) for row in sample_rows(head, delimiter))
        if not widths:
            continue
        width, count = widths.most_common(1)[0]
        score = (count / widths.total(), width)
        is_better = score[0] > best_score[0] + 0.05 or (
            score[0] > best_score[0] - 0.05 and width > best_score[1]
        )
        if width > 1 and is_better:
            best, best_score = delimiter, score
    return best


def sample_rows(head: str, delimiter: str) -> list[list[str]]:
    """The first rows; the last one of the text, which may be cut, is left out if there are more."""
    rows: list[list[str]] = []
    lines = head.splitlines(keepends=True)
    try:
        for row in csv.reader(lines, delimiter=delimiter):
            if row:
                rows.append(row)
            if len(rows) > _SNIFFED_ROWS:
                break
    except csv.Error:  # a cell without end; what came before it counts
        pass
    return rows[:-1] if len(rows) > 2 else rows


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: different words, unlike the cells below them."""
    if not rows:
        return False
    first = [cell.strip() for cell in rows[0]]
    # pandas writes its index, the first column, without a name.
    if len(first) > 1 and any(cell in MISSING and (at or cell) for at, cell in enumerate(first)):
        return False
    if any(kind_of(cell) is not Kind.TEXT for cell in first if cell):
        years = [kind_of(cell) is Kind.INTEGER for cell in first]
        return not years[0] and all(cell.isdigit() and len(cell) == 4 for cell in first[1:])
    if len(rows) == 1:
        return True
    below = [[cell.strip() for cell in row] for row in rows[1:]]
    is_typed = any(
        kind_of(row[at]) is not Kind.TEXT for row in below for at in range(len(row)) if row[at]
    )
    is_repeated = any(first == row for row in below) or len(set(first)) < len(first)
    return is_typed or not is_repeated
