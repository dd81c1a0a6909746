"""What does an HTML page say? Its title and its text, by the standard library alone.

Headings, lists, tables and links are written as in Markdown. What a reader does not see is left
out: scripts, hidden elements, and the navigation around the page's own text.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urljoin

MAX_TEXT_CHARS = 1_000_000
TIME_S = 3.0
_PIECE_CHARS = 16 << 10
_MAX_OPEN_CHARS = 1 << 20
"""Of one tag or comment that does not end: the parser reads it again with every piece."""
_MAX_TAIL_CHARS = 4 << 10
_MAX_DEPTH = 400
_MAX_LINK_CHARS = 300
_ENOUGH_CHARS = 200


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VOID = _names("area base br col embed hr img input link meta source track wbr")
_UNSEEN = _names(
    "script style template svg math iframe object canvas audio video select datalist head "
    "nav footer aside noscript button dialog"
)
_BLOCKS = _names(
    "address article blockquote body caption center dd details div dl dt fieldset figcaption "
    "figure form h1 h2 h3 h4 h5 h6 header hr html legend li main ol p pre section summary table "
    "tbody tfoot thead tr ul"
)
_CLOSES_ITSELF = _names("p li dt dd tr td th option")
_MAIN = frozenset({"main", "article"})
_INVISIBLE_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0|opacity\s*:\s*0(\.0*)?\s*(;|$)",
    re.I,
)


@dataclass(frozen=True)
class Page:
    """What was read of a page."""

    title: str
    text: str
    cut: bool = False
    """Whether the rest was left out: too long, or too slow to read."""


def read_html(html: str, url: str, now: Callable[[], float] = time.monotonic) -> Page:
    """`url` is where the page's links start from."""
    reader = _Reader(url)
    ends = now() + TIME_S
    cut = False
    for start in range(0, len(html), _PIECE_CHARS):
        reader.feed(html[start : start + _PIECE_CHARS])
        unread = len(reader.rawdata)
        if now() > ends or unread > _MAX_OPEN_CHARS or reader.num_chars > MAX_TEXT_CHARS:
            cut = True
            break
    if len(reader.rawdata) <= _MAX_TAIL_CHARS:
        reader.close()
    return Page(reader.title(), reader.text(), cut)


class _Reader(HTMLParser):
    """Follows the tree as far as the text needs it."""

    def __init__(self, url: str):
        super().__init__(convert_charrefs=True)
        self._base = url
        self._open: list[str] = []
        self._unseen_at: int | None = None
        """The depth of the element that hides all below it."""
        self._title: list[str] = []
        self._blocks: list[tuple[str, bool]] = []
        """(text, whether it is in the page's main part)."""
        self._line: list[str] = []
        self._prefix = ""
        self._link: tuple[str, int] | None = None
        """(address, where its text begins in `_line`)."""
        self.num_chars = 0

    def title(self) -> str:
        return " ".join("".join(self._title).split())

    def text(self) -> str:
        """Of the main part if there is one that says something, else of the whole page."""
        self._end_block()
        main = [block for block, in_main in self._blocks if in_main]
        of_all = [block for block, _ in self._blocks]
        chosen = main if sum(map(len, main)) >= _ENOUGH_CHARS else of_all
        return re.sub(r"\n{3,}", "\n\n", "\n".join(chosen)).strip("\n")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._close_implied(tag)
        self._begin(tag, dict(attrs))
        if tag not in _VOID and len(self._open) < _MAX_DEPTH:
            self._open.append(tag)
            hidden = tag in _UNSEEN or _is_hidden(dict(attrs))
            if hidden and self._unseen_at is None:
                self._unseen_at = len(self._open)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            self._begin(tag, dict(attrs))
        else:  # HTML has no <div/>: browsers read it as <div>
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            self._close(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "title" and len(self._title) < 100:
            self._title.append(data[:1000])
        elif self._unseen_at is None:
            self._line.append(data if "pre" in self._open else re.sub(r"\s+", " ", data))
            self.num_chars += len(data)

    def _begin(self, tag: str, attributes: dict[str, str | None]) -> None:
        if self._unseen_at is not None:
            return
        if tag in _BLOCKS:
            self._end_block()
        if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self._prefix = "#" * int(tag[1]) + " "
        elif tag == "li":
            self._prefix = "- "
        elif tag == "br":
            self._line.append("\n")
        elif tag in ("td", "th"):
            self._line.append(" | ")
        elif tag == "img" and (attributes.get("alt") or "").strip():
            self._line.append(f"[image: {' '.join((attributes['alt'] or '').split())[:200]}]")
        elif tag == "a" and self._link is None:
            address = _link_address(self._base, attributes.get("href"))
            self._link = (address, len(self._line)) if address else None

    def _close_implied(self, tag: str) -> None:
        """What an author need not close: an item before the next, a paragraph before a block."""
        ended = {tag} & _CLOSES_ITSELF | ({"p"} if tag in _BLOCKS else set())
        for inner in reversed(self._open):
            if inner in ended:
                self._close(inner)
                return
            if inner in _BLOCKS:
                return

    def _close(self, tag: str) -> None:
        """This element and those in it that are still open."""
        closed = ""
        while self._open and closed != tag:
            closed = self._open[-1]
            if self._unseen_at is None:
                self._end(closed)
            elif len(self._open) == self._unseen_at:
                self._unseen_at = None
            self._open.pop()

    def _end(self, tag: str) -> None:
        if tag == "a":
            self._end_link()
        elif tag in _BLOCKS:
            in_list = "li" in self._open[:-1]
            self._end_block(blank=not in_list and tag not in ("li", "tr", "dt", "dd", "div"))

    def _end_link(self) -> None:
        if self._link is None:
            return
        address, start = self._link
        words = " ".join("".join(self._line[start:]).split())
        if words:
            self._line[start:] = [f"[{words}]({address})"]
            self.num_chars += len(address)
        self._link = None

    def _end_block(self, blank: bool = False) -> None:
        """`blank`: an empty line follows."""
        self._end_link()
        raw, self._line = "".join(self._line), []
        if "pre" in self._open:
            block = raw.strip("\n")
        else:
            lines = (" ".join(line.split()) for line in raw.split("\n"))
            block = "\n".join(line for line in lines if line).removeprefix("| ")
        if block:
            in_main = any(tag in _MAIN for tag in self._open)
            self._blocks.append((self._prefix + block, in_main))
            self._prefix = ""
        if blank and self._blocks and self._blocks[-1][0]:
            self._blocks.append(("", self._blocks[-1][1]))


def _is_hidden(attributes: dict[str, str | None]) -> bool:
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    return bool(_INVISIBLE_STYLE.search(attributes.get("style") or ""))


def _link_address(base: str, href: str | None) -> str | None:
    """None for anchors within the page, scripts and the like."""
    if not href or href.lstrip().startswith("#"):
        return None
    try:
        address = urljoin(base, href.strip())
    except ValueError:
        return None
    if not address.startswith(("http://", "https://")) or len(address) > _MAX_LINK_CHARS:
        return None
    return address.replace(" ", "%20").replace("(", "%28").replace(")", "%29")
