"""Which ids are tokens, and for which bytes? Read without the tokenizers library."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_model.json_files import read_json
from moe_model.text import files
from moe_model.text.added_tokens import parse_added_tokens, read_vocab
from moe_model.text.byte_level import token_bytes


@dataclass(frozen=True, kw_only=True)
class TokenTable:
    """The tokenizer's vocabulary; the model's may be larger."""

    bytes_of_id: tuple[bytes | None, ...]
    """None for holes. Added tokens stand for their text, though no text ever becomes one."""
    added_ids: Mapping[str, int]

    @classmethod
    def load(cls, folder: Path, markers: Collection[str] = ()) -> "TokenTable":
        """Read `tokenizer.json`. Raises a one-line ValueError naming the file.

        `markers`: texts that must be among the added tokens.
        """
        path = Path(folder) / files.TOKENIZER_FILE
        content = read_json(path, limit_bytes=files.MAX_TOKENIZER_BYTES)
        added = parse_added_tokens(path, content, markers)
        vocab = read_vocab(path, content)
        return cls.build(vocab, {text: token.token_id for text, token in added.items()})

    @classmethod
    def build(cls, vocab: Mapping[str, int], added_ids: Mapping[str, int]) -> "TokenTable":
        """From the BPE model's vocabulary, which may list added tokens as well."""
        table: list[bytes | None] = [None] * (max([*vocab.values(), *added_ids.values()]) + 1)
        for text, token_id in vocab.items():
            table[token_id] = token_bytes(text)
        for text, token_id in added_ids.items():
            table[token_id] = text.encode("utf-8", errors="replace")
        return cls(bytes_of_id=tuple(table), added_ids=dict(added_ids))

    def missing_ids(self, vocab_size: int) -> list[int]:
        """Ids below `vocab_size` that no token has."""
        holes = [i for i, data in enumerate(self.bytes_of_id) if data is None]
        return holes + list(range(len(self.bytes_of_id), vocab_size))
