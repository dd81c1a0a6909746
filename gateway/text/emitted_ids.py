"""Which ids did we emit for the text of an assistant's turn, so that they can be sent again?

A client returns an answer as text. Tokenised again, it may get other ids than the model emitted,
and the prefix cache misses from there on. So the emitted ids are kept, one entry for each stretch
of text between two markers, under a digest of the tenant and of the turn so far: its texts and
markers, from the role marker to the end of the stretch. A stretch of a rendered prompt is looked
up under the same digest. So an entry is used only where the template put exactly this text after
exactly these markers, and it decodes to this text. Markers come from the template alone, and in
whatever form the client returned the thinking, the rendered turn is the same.
"""

import hashlib
import itertools
from array import array
from collections.abc import Iterator, Sequence

from gateway.text.recently_used import RecentlyUsed
from moe_model.families.family import ChatFormat
from moe_model.text.segments import Segment
from moe_model.text.tokenizer import Tokenizer

_ENTRY_BYTES = 300
"""What an entry holds besides its ids: key, array object and table slot."""


_LONG_CHARS = 512
"""Tokenising so many takes longer than looking them up."""


class EmittedIds(RecentlyUsed["array[int]"]):
    """The most recently used entries of all tenants within `max_bytes`. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, chat_format: ChatFormat, *, max_bytes: int):
        super().__init__(_size, max_bytes=max_bytes)
        self._tokenizer = tokenizer
        self._format = chat_format
        self._marker_of_id = {i: text for text, i in tokenizer.marker_ids.items()}

    def remember(self, tenant: str, prompt: Sequence[int], emitted: Sequence[int]) -> None:
        """Keep the turn that the last role marker of `prompt` opened and `emitted` continued."""
        role_id = self._tokenizer.marker_ids[self._format.role_start]
        opening = next((i for i in range(len(prompt), 0, -1) if prompt[i - 1] == role_id), None)
        if opening is None:
            return
        digest = _turn_digest(tenant)
        for segment, ids in self._stretches([*prompt[opening:], *emitted]):
            if segment.text in self._format.turn_markers and segment.is_marker:
                return  # the turn is over
            _extend(digest, segment)
            if not segment.is_marker:
                self._put(digest.digest(), array("I", ids))

    def encode(self, tenant: str, segments: Sequence[Segment]) -> list[int]:
        """As `Tokenizer.encode_segments`, but with emitted ids for the stretches known."""
        ids: list[int] = []
        digest = None
        for segment in segments:
            if segment.is_marker and segment.text == self._format.role_start:
                digest = _turn_digest(tenant)
            elif digest is not None:
                _extend(digest, segment)
                known = None if segment.is_marker else self._get(digest.digest())
                if known is not None:
                    ids.extend(known)
                    continue
            new = self._tokenizer.encode_segments([segment])
            if digest is not None and len(segment.text) >= _LONG_CHARS:
                self._put(digest.digest(), array("I", new))
            ids.extend(new)
        return ids

    def _stretches(self, ids: Sequence[int]) -> Iterator[tuple[Segment, list[int]]]:
        """The ids as the segments of a rendered prompt; ends at a stretch that is no text."""
        for marker, run in itertools.groupby(ids, self._marker_of_id.get):
            stretch = list(run)
            if marker is not None:
                yield from [(Segment(marker, True), [])] * len(stretch)
                continue
            text = self._text(stretch)
            if text is None:
                return
            yield Segment(text, False), stretch

    def _text(self, ids: Sequence[int]) -> str | None:
        """What exactly these ids stand for; None for broken UTF-8 and ids without an entry."""
        parts = [self._tokenizer.token_bytes(token_id) for token_id in ids]
        if not all(parts):
            return None
        try:
            return b"".join(parts).decode()
        except UnicodeDecodeError:
            return None


def _turn_digest(tenant: str) -> "hashlib._Hash":
    digest = hashlib.sha256()
    _extend(digest, Segment(tenant, False))
    return digest


def _extend(digest: "hashlib._Hash", segment: Segment) -> None:
    data = segment.text.encode()
    digest.update(b"%c%d:" % (b"m" if segment.is_marker else b"t", len(data)))
    digest.update(data)


def _size(ids: "array[int]") -> int:
    return _ENTRY_BYTES + ids.itemsize * len(ids)
