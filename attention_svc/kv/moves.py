"""What is to be copied before the next step? No tensors."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Copy the first `num_rows` rows of a block to the start of another."""

    source: int
    target: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class MoveOut:
    """Copy a block to a slot of host memory, before the block is written again."""

    block: int
    slot: int


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Copy the first `num_rows` rows of a slot of host memory to the start of a block."""

    slot: int
    block: int
    num_rows: int


Move = BlockCopy | MoveOut | ReadBack
