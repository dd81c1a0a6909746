"""Which ids may be sampled, and which end a sequence, by the checkpoint's tokenizer?"""

import logging
from dataclasses import dataclass
from pathlib import Path

from moe_model.config import ModelConfig, load_generation_defaults
from moe_model.families.known import family_of
from moe_model.text.files import TOKENIZER_FILE
from moe_model.text.token_table import TokenTable

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids only; the tokens' bytes are read when a grammar first needs them."""

    size: int
    has_tokens: bool = False
    """Whether the checkpoint has a tokenizer."""
    missing_ids: tuple[int, ...] = ()
    """Ids for which the model has a row but the tokenizer no token."""
    default_stops: frozenset[int]
    """EOS, and the marker that opens a turn: without it a model may go on to invent a next turn."""

    @classmethod
    def load(cls, folder: Path, model: ModelConfig) -> "Vocabulary":
        """Raises ValueError naming the file for ids outside the model's vocabulary."""
        family = family_of(model)
        defaults = load_generation_defaults(folder, family.generation_defaults)
        stops = set(defaults.eos_token_ids or model.eos_token_ids)
        if stops and max(stops) >= model.vocab_size:
            raise ValueError(
                f"{folder}/generation_config.json: eos_token_id {max(stops)} is outside "
                f"the vocabulary (0..{model.vocab_size - 1})"
            )
        if not (folder / TOKENIZER_FILE).exists():
            log.warning(
                "%s: no %s: every id counts as a token, and grammars are refused",
                folder,
                TOKENIZER_FILE,
            )
            return cls(size=model.vocab_size, default_stops=frozenset(stops))
        table = TokenTable.load(folder, family.chat_format.markers)
        if len(table.bytes_of_id) > model.vocab_size:
            raise ValueError(
                f"{folder}: {TOKENIZER_FILE} has ids up to {len(table.bytes_of_id) - 1}, "
                f"config.json's vocab_size is {model.vocab_size}"
            )
        return cls(
            size=model.vocab_size,
            has_tokens=True,
            missing_ids=tuple(table.missing_ids(model.vocab_size)),
            default_stops=frozenset(stops | {table.added_ids[family.chat_format.role_start]}),
        )
