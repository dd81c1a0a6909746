"""How is help wrapped, so that names of flags are never broken?"""

import argparse
import textwrap


def wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words, a word with hyphens or of more than `width` columns too."""
    return textwrap.wrap(
        " ".join(text.split()), width, break_long_words=False, break_on_hyphens=False
    )


def page(text: str, width: int) -> list[str]:
    """The lines of a text of paragraphs; lines that are indented stay as they are."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        lines += [""] if lines else []
        as_is = paragraph.startswith("  ")
        lines += paragraph.splitlines() if as_is else wrapped(paragraph, width)
    return lines


class WholeWords(argparse.HelpFormatter):
    """argparse's own help breaks words at hyphens, and joins lines."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in page(text, width - len(indent)))
