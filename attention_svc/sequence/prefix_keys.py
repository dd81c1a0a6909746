"""Under which keys are a sequence's blocks shared?

A block's key is the SHA-256 of its parent's key and its tokens; the first parent is the SHA-256 of
the checkpoint and the caller's salt. So equal keys mean the same model, tenant and tokens from the
first one on, and nobody can construct a collision. The first rows of a block have a key too, made
from just their tokens.
"""

import hashlib
from array import array
from dataclasses import dataclass, field

ID_BYTES = array("I").itemsize


@dataclass(slots=True)
class PrefixKeys:
    """Keys of one sequence's tokens, extended as blocks fill."""

    root: bytes
    block_size: int
    num_prompt: int
    blocks: list[bytes] = field(default_factory=list)
    """Keys of the full blocks, in order."""
    tail: bytes = b""
    """Key of the rows between the prompt's last full block and its last token; empty if none."""

    @property
    def tail_block(self) -> int:
        """Index of the block with the tail's rows."""
        return (self.num_prompt - 1) // self.block_size

    @property
    def tail_rows(self) -> int:
        """The last prompt token is always computed, so the tail ends before it."""
        return (self.num_prompt - 1) % self.block_size

    def parent(self, index: int) -> bytes:
        """The key that those of block `index` are made from."""
        return self.blocks[index - 1] if index else self.root

    def extend(self, token_ids: list[int]) -> None:
        """Append the keys of whole blocks of tokens that follow."""
        parent = self.parent(len(self.blocks))
        data = _as_bytes(token_ids)  # all at once: prompts are long
        block_bytes = self.block_size * ID_BYTES
        for start in range(0, len(data), block_bytes):
            parent = hashlib.sha256(parent + data[start : start + block_bytes]).digest()
            self.blocks.append(parent)


def prompt_keys(root: bytes, prompt_ids: list[int], block_size: int) -> PrefixKeys:
    """Keys of every full block of a prompt, and of its tail."""
    keys = PrefixKeys(root, block_size, len(prompt_ids))
    keys.extend(prompt_ids[: len(prompt_ids) // block_size * block_size])
    if keys.tail_rows:
        tail_ids = prompt_ids[keys.tail_block * block_size : -1]
        keys.tail = child_key(keys.parent(keys.tail_block), tail_ids)
    return keys


def root_key(checkpoint_id: str, cache_salt: str) -> bytes:
    """The parent of a first block. Lengths are hashed too, so that different pairs differ."""
    digest = hashlib.sha256()
    for text in (checkpoint_id, cache_salt):
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def child_key(parent: bytes, token_ids: list[int]) -> bytes:
    """The key of tokens that follow those of `parent`."""
    return hashlib.sha256(parent + _as_bytes(token_ids)).digest()


def _as_bytes(token_ids: list[int]) -> bytes:
    return array("I", token_ids).tobytes()
