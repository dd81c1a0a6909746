"""In which encoding is a page written?"""

import codecs
import re

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LOOKED_AT_BYTES = 2048
_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([a-zA-Z0-9_:.-]{1,40})""", re.I)
_NAMED = re.compile(r"""charset\s*=\s*["']?([a-zA-Z0-9_:.-]{1,40})""", re.I)
_ON_THE_WEB = frozenset(
    {
        *("ascii", "utf-8", "utf-16", "utf-16-le", "utf-16-be", "gbk", "gb2312", "gb18030"),
        *("big5", "big5hkscs", "euc_jp", "shift_jis", "cp932", "iso2022_jp", "euc_kr", "cp949"),
        *("koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "tis-620", "cp866", "cp874"),
        *(f"cp{number}" for number in range(1250, 1259)),
        *(f"iso8859-{part}" for part in range(1, 17)),
    }
)
"""Python's names. Others are left out: some of its codecs are slow on hostile bytes."""
_WIDER = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "utf-16": "utf-16-le",
}
"""What browsers read under a name that is often wrong."""


def decode(body: bytes, content_type: str = "") -> str:
    """The text; what is no character becomes U+FFFD.

    A byte order mark counts first, then the header, then the page's own word, then UTF-8.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    return body.decode(_encoding(body, content_type), "replace")


def _encoding(body: bytes, content_type: str) -> str:
    named = _NAMED.search(content_type)
    declared = _DECLARED.search(body[:_LOOKED_AT_BYTES])
    if named and (known := _known(named[1])):
        return known
    if declared and (known := _known(declared[1].decode("ascii"))):
        return known if not known.startswith("utf-16") else "utf-8"  # it was read as ASCII
    return "utf-8" if _is_utf8(body) else "cp1252"


def _known(name: str) -> str | None:
    try:
        canonical = codecs.lookup(name).name
    except LookupError:
        return None
    canonical = _WIDER.get(canonical, canonical)
    return canonical if canonical in _ON_THE_WEB else None


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
