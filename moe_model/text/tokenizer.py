"""How does text become token ids, such that no caller's text becomes a control token?

Think and tool tags are often added tokens but not "special" ones, so a tokenizer's own switch
for special tokens does not protect them. Therefore text is encoded by a copy of the tokenizer
that has no added tokens at all; ids of added tokens come only from `Segment`s that the chat
template marked. On text without a marker both ways give the same ids, because the ordinary
tokenizer also cuts at added tokens first and encodes each stretch on its own.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import tokenizers

from moe_model.json_files import read_json
from moe_model.text import files
from moe_model.text.added_tokens import AddedToken, parse_added_tokens
from moe_model.text.detokenizer import IncrementalDetokenizer
from moe_model.text.plain_tokenizer import build_plain_tokenizer
from moe_model.text.segments import Segment
from moe_model.text.token_table import TokenTable


class Tokenizer:
    """A checkpoint's byte-level BPE. Thread-safe: nothing changes after loading."""

    def __init__(
        self,
        *,
        plain: tokenizers.Tokenizer,
        vocab: Mapping[str, int],
        added_tokens: Mapping[str, AddedToken],
    ) -> None:
        """Use `load`. `plain` must not know any added token; `vocab` is its model's."""
        self._plain = plain
        self.marker_ids: Mapping[str, int] = MappingProxyType(
            {text: token.token_id for text, token in added_tokens.items()}
        )
        self.special_ids = frozenset(
            token.token_id for token in added_tokens.values() if token.special
        )
        self._bytes_of_id = TokenTable.build(vocab, self.marker_ids).bytes_of_id
        self.vocab_size = len(self._bytes_of_id)

    @classmethod
    def load(cls, folder: Path, markers: Collection[str] = ()) -> "Tokenizer":
        """Read `tokenizer.json`. Raises a one-line ValueError naming the file.

        `markers`: texts that must be among the added tokens.
        """
        path = Path(folder) / files.TOKENIZER_FILE
        content = read_json(path, limit_bytes=files.MAX_TOKENIZER_BYTES)
        added_tokens = parse_added_tokens(path, content, markers)
        vocab, plain = build_plain_tokenizer(path, content, added_tokens)
        return cls(plain=plain, vocab=vocab, added_tokens=added_tokens)

    def has_token(self, token_id: int) -> bool:
        """Whether the id has an entry; ids above the last one and holes have none."""
        return 0 <= token_id < self.vocab_size and self._bytes_of_id[token_id] is not None

    def token_bytes(self, token_id: int, *, skip_special_tokens: bool = False) -> bytes:
        """Bytes the id stands for; b"" for ids without an entry and for skipped ones."""
        if skip_special_tokens and token_id in self.special_ids:
            return b""
        if not self.has_token(token_id):
            return b""
        return self._bytes_of_id[token_id] or b""

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text, never that of an added token. ValueError for lone surrogates."""
        if not text:
            return []
        try:
            # The batch call computes no offsets: less time, and shorter holds of the interpreter.
            return list(self._plain.encode_batch_fast([text], add_special_tokens=False)[0].ids)
        except (TypeError, UnicodeEncodeError) as error:
            raise ValueError("text must be valid Unicode, has a lone surrogate") from error

    def encode_segments(self, segments: Sequence[Segment]) -> list[int]:
        """Ids of a rendered prompt. ValueError for a marker that is no added token."""
        ids: list[int] = []
        for segment in segments:
            if not segment.is_marker:
                ids.extend(self.encode_text(segment.text))
            elif segment.text in self.marker_ids:
                ids.append(self.marker_ids[segment.text])
            else:
                raise ValueError(f"marker {segment.text!r:.80} is not an added token")
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of the ids; bytes that are not UTF-8 give U+FFFD, ids without entry nothing."""
        parts = (self.token_bytes(i, skip_special_tokens=skip_special_tokens) for i in ids)
        return b"".join(parts).decode("utf-8", errors="replace")

    def detokenizer(self) -> IncrementalDetokenizer:
        """A fresh incremental decoder: role and turn markers skipped, think and tool tags kept."""
        return IncrementalDetokenizer(lambda i: self.token_bytes(i, skip_special_tokens=True))
