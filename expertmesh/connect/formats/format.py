"""What can each format of configuration files do? Read and replace values as text, in place."""

from typing import Any, Protocol

Path = tuple[str, ...]
"""The keys that lead to a value, from the outermost one."""


class UnmergeableError(Exception):
    """A file that cannot be changed without doubt; the message says why, for people."""


class Format(Protocol):
    """Texts of one format. Every method may raise UnmergeableError."""

    def parse(self, text: str) -> dict[str, Any]:
        """All that the text says, as mappings, lists and values."""
        ...

    def written(self, value: Any) -> str:
        """How this value is written."""
        ...

    def same(self, one: str, other: str) -> bool:
        """Whether two ways to write a value mean the same."""
        ...

    def get(self, text: str, path: Path) -> str | None:
        """The value at this place as it is written; None if there is none."""
        ...

    def put(self, text: str, path: Path, written: str) -> str:
        """The text with this value, which replaces one that is there."""
        ...

    def drop(self, text: str, path: Path) -> str:
        """The text without this value or mapping, which is there."""
        ...


def newline_of(text: str) -> str:
    """How lines end here."""
    return "\r\n" if "\r\n" in text else "\n"
