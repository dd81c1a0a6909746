"""Which token ids may not follow each other, so that these words are not written?"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.errors import bad_field
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from protos.sampling_ranges import MAX_BANNED_SEQUENCES, MAX_BANNED_TOKENS


@dataclass(frozen=True, kw_only=True)
class BadWords:
    """Texts, in the thinking either, and what the client calls them."""

    texts: Sequence[str] = ()
    field: str = ""

    def sequences(self, tokenizer: Tokenizer) -> list[attention_pb2.TokenSequence]:
        """Each as it is, and with a space before it, as it is inside of a text.

        One that the model spells with other tokens than the tokenizer does is not found. Raises
        RequestError for what is no Unicode, or too long together.
        """
        found: dict[tuple[int, ...], None] = {}  # in order, each once
        for index, word in enumerate(self.texts):
            try:
                for text in (word, " " + word.lstrip(" ")):
                    found[tuple(tokenizer.encode_text(text))] = None
            except ValueError as error:
                raise bad_field(f"{self.field}[{index}]", str(error)) from None
        if len(found) > MAX_BANNED_SEQUENCES or sum(map(len, found)) > MAX_BANNED_TOKENS:
            raise bad_field(self.field, f"more than {MAX_BANNED_TOKENS} tokens together")
        return [attention_pb2.TokenSequence(token_ids=ids) for ids in found]
