"""What does the gateway read of a checkpoint? Configs, tokenizer, template; never a weight."""

import time
from dataclasses import dataclass
from pathlib import Path

from moe_model.chat.template import ChatTemplate
from moe_model.config import GenerationDefaults, ModelConfig, load_generation_defaults
from moe_model.families.family import ChatFormat
from moe_model.families.known import family_of, load_config
from moe_model.text.files import read_tokenizer_config
from moe_model.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Everything about the model that text in, text out needs."""

    names: tuple[str, ...]
    """Accepted in requests; the first is shown."""
    config: ModelConfig
    defaults: GenerationDefaults
    chat_format: ChatFormat
    tokenizer: Tokenizer
    template: ChatTemplate
    longest_token_bytes: int
    created: int
    bos_token_id: int | None
    """As the tokenizer's own files have it; the chat template writes it where it belongs."""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def end_of_thinking_id(self) -> int:
        return self.tokenizer.marker_ids[self.chat_format.think.closing]

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return frozenset(self.defaults.eos_token_ids or self.config.eos_token_ids)

    @property
    def eos_token_id(self) -> int | None:
        """The one of them that is told where there is room for one."""
        return min(self.eos_token_ids, default=None)


def load_model_files(folder: Path, names: tuple[str, ...]) -> ModelFiles:
    """Read and check the files. Raises ValueError naming the file that is missing or wrong."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"--model: {folder} is not a folder")
    config = load_config(folder)
    family = family_of(config)
    chat_format = family.chat_format
    tokenizer = Tokenizer.load(folder, chat_format.markers)
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"{folder}: tokenizer.json has ids up to {tokenizer.vocab_size - 1}, config.json's "
            f"vocab_size is {config.vocab_size}"
        )
    longest = max(len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size))
    return ModelFiles(
        names=names or (folder.resolve().name,),
        config=config,
        defaults=load_generation_defaults(folder, family.generation_defaults),
        chat_format=chat_format,
        tokenizer=tokenizer,
        template=ChatTemplate.load(folder, chat_format.markers),
        longest_token_bytes=max(1, longest),
        created=int(time.time()),
        bos_token_id=tokenizer.marker_ids.get(_bos_token(folder)),
    )


def _bos_token(folder: Path) -> str:
    """Its text, in either of the two forms that files have; empty when they have none."""
    token = read_tokenizer_config(folder).get("bos_token")
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
