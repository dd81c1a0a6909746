"""What does a Markdown page of the repository name: files, commands, flags?"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.places import ROOT

_SPAN = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^\s*```")


def pages() -> list[str]:
    """Every Markdown file of the repository, as a path from its root."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(str(path) for path in found if not _is_made(path))


def _is_made(path: Path) -> bool:
    """Of an environment, a cache or a build."""
    return path.parts[0] in {"build", "dist", "out", "run"} or any(
        part.startswith(".") for part in path.parts
    )


@dataclass(frozen=True)
class Line:
    """A line of a page."""

    number: int
    text: str
    is_code: bool
    """Of a fenced block, or indented by four and more outside a list."""


def lines(page: str) -> list[Line]:
    found: list[Line] = []
    in_fence = in_list = in_code = False
    for number, text in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        fence = bool(_FENCE.match(text))
        if not in_fence and text.strip():
            blank_before = not found or not found[-1].text.strip() or in_code
            in_code = text.startswith("    ") and blank_before and not in_list
            if not text.startswith(" "):
                in_list = bool(re.match(r"([-*]|\d+\.) ", text))
        found.append(Line(number, text, in_fence or fence or in_code))
        in_fence ^= fence
    return found


def paragraphs(page: str) -> Iterator[str]:
    """Prose without code blocks: what blank lines separate, and each row of a table and item of a
    list by itself."""
    block: list[str] = []
    for line in [*lines(page), Line(0, "", False)]:
        begins = bool(re.match(r"\s*(\||[-*] |\d+\. |#)", line.text))
        if (begins or line.is_code or not line.text.strip()) and block:
            yield " ".join(block)
            block = []
        if not line.is_code and line.text.strip():
            block.append(line.text.strip())


def spans(text: str) -> list[str]:
    """What stands between backticks."""
    return _SPAN.findall(text)


def commands(page: str) -> list[str]:
    """Command lines of code blocks, continued ones joined, comments cut off; and code spans."""
    code, joined = "", []
    for line in lines(page):
        if line.is_code and not _FENCE.match(line.text):
            code += line.text.strip()
            if code.endswith("\\"):
                code = code[:-1].strip() + " "
                continue
            joined.append(re.sub(r"\s+#.*", "", code))
        code = ""
    return joined + [span for one in paragraphs(page) for span in spans(one)]
