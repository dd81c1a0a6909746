"""Which grammars were compiled recently, and which were refused? By the SHA-256 of their text."""

from collections import OrderedDict
from dataclasses import dataclass, field

from llguidance import LLMatcher

from attention_svc.grammar.limits import CACHED_BYTES, CACHED_GRAMMARS, REMEMBERED_REFUSALS
from attention_svc.grammar.state import GrammarCost


@dataclass
class Compiled:
    """A matcher that is only copied. Copies share its lexer: if one hits a limit, all do."""

    matcher: LLMatcher
    size_bytes: int
    worn_out: bool = field(default=False)
    cost: GrammarCost = field(default_factory=GrammarCost)

    def wear_out(self) -> None:
        """Called on any thread when a copy hit a shared limit: it has to be compiled again."""
        self.worn_out = True


class GrammarCache:
    """Bounded by number and, for compiled grammars, by the size of their texts."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[bytes, Compiled] = OrderedDict()
        self._refusals: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._compiled)

    def compiled(self, digest: bytes) -> Compiled | None:
        entry = self._compiled.get(digest)
        if entry is None or entry.worn_out:
            self._compiled.pop(digest, None)
            return None
        self._compiled.move_to_end(digest)
        return entry

    def known(self, digest: bytes) -> Compiled | str | None:
        """What was compiled, or why it was refused."""
        return self.refusal(digest) or self.compiled(digest)

    def keep(self, digest: bytes, entry: Compiled) -> None:
        self._compiled[digest] = entry
        while len(self._compiled) > CACHED_GRAMMARS or (
            len(self._compiled) > 1
            and sum(one.size_bytes for one in self._compiled.values()) > CACHED_BYTES
        ):
            self._compiled.popitem(last=False)

    def refusal(self, digest: bytes) -> str | None:
        """Why it was refused, if it was."""
        if digest in self._refusals:
            self._refusals.move_to_end(digest)
        return self._refusals.get(digest)

    def refuse(self, digest: bytes, reason: str) -> None:
        """Remember a refusal; only for reasons that hold for the same text at any time."""
        self._refusals[digest] = reason
        if len(self._refusals) > REMEMBERED_REFUSALS:
            self._refusals.popitem(last=False)
