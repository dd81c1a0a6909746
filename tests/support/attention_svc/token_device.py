"""Whole steps whose tokens follow from what is in the cache: a made-up model on a slow device.

The cache holds one token a slot. A row's next token is a hash of all that its table shows, so that
any wrong slot, position, table or token changes what comes after it.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from attention_svc.kv.moves import BlockCopy
from moe_model.config import ModelConfig
from moe_model.maths.step_meta import StepMeta


@dataclass(frozen=True)
class Tokens:
    """What comes after a history, of `vocab_size` ids."""

    vocab_size: int
    open_in: int = 10**9
    """The device leaves one token in so many to the host."""
    bad_in: int = 10**9
    """The logits of one token in so many are NaN."""

    def after(self, history: list[int]) -> int | None:
        """None: NaN."""
        number = _hash(history)
        return None if number % self.bad_in == 0 else number // 7 % self.vocab_size

    def is_open(self, history: list[int]) -> bool:
        return _hash(history) // 3 % self.open_in == 0


def _hash(history: list[int]) -> int:
    digest = hashlib.blake2b(np.array(history, np.int64).tobytes(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


@dataclass(eq=False)
class TokenStep:
    """See WholeStep. It ends when it has been asked about for some time, and in its turn."""

    device: "TokenDevice"
    number: int
    hidden_TD: Tensor
    made_BV: Tensor
    picks: list[int]
    is_short: bool
    asked: int
    has_ended: bool = field(default=False, init=False)

    @property
    def logits_BV(self) -> Tensor:
        if self.number == self.device.num_steps:
            return self.made_BV
        return torch.full_like(self.made_BV, 7.0)  # overwritten: nobody may look at them

    def wait(self) -> None:
        self.device.end_all_before(self)
        self.has_ended = True

    def device_s(self) -> float:
        return 0.001

    def is_done(self) -> bool:
        self.asked -= 1
        if self.asked < 0:
            self.wait()
        return self.has_ended

    def picked(self) -> list[int]:
        assert self.has_ended
        assert self.number >= self.device.num_steps - 1, "overwritten"
        return list(self.picks)

    def chosen(self) -> np.ndarray:
        config = self.device.config
        return np.zeros((config.num_layers, self.hidden_TD.shape[0], config.top_k), np.int32)


class TokenDevice:
    """See WholeSteps."""

    def __init__(
        self, config: ModelConfig, tokens: Tokens, num_slots: int, block_size: int, seed: int = 0
    ):
        self.config, self.num_steps, self.num_ahead = config, 0, 0
        self.tokens, self._block_size = tokens, block_size
        self._held = np.full(num_slots, -1)
        self._made: set[int] = set()
        self._steps: list[TokenStep] = []
        self._last: list[int] = []
        self._random = random.Random(seed)
        self.controls: list[np.ndarray] = []
        """Of every decode step, in their order."""

    def warm_up(self, most_rows: int, most_decode: int, num_controls: int) -> Iterator[int]:
        yield from ()

    def is_short(self, meta: StepMeta, controls: np.ndarray | None = None) -> bool:
        every_row = meta.logit_rows_B.shape[0] == meta.num_rows
        return meta.is_decode and every_row and meta.num_rows in self._made

    def start(self, meta: StepMeta, controls: np.ndarray | None = None) -> TokenStep:
        self._steps = [step for step in self._steps if not step.has_ended]
        is_short = self.is_short(meta, controls)
        if self._steps:
            (last,) = self._steps
            assert last.is_short
            assert is_short
            self.num_ahead += 1
        self._made.add(meta.num_rows)
        if meta.is_decode and controls is not None:
            self.controls.append(controls)
        ids_T = meta.token_ids_T.numpy().copy()
        unknown = np.flatnonzero(ids_T < 0)
        assert bool(len(unknown)) == bool(self._steps)
        for row in unknown:
            ids_T[row] = max(0, self._last[-1 - ids_T[row]])
        self._held[meta.slot_mapping_T.numpy()] = ids_T
        histories = dict(enumerate(self._decoded(meta)))
        for chunk in meta.chunks:
            seen = self._seen(chunk.block_table_W.numpy(), chunk.num_cached)
            histories[chunk.rows.stop - 1] = seen
        wanted = [histories[row] for row in meta.logit_rows_B.tolist()]
        logits_BV = torch.zeros((len(wanted), self.tokens.vocab_size))
        self._last = [
            self._pick(seen, logits_V) for seen, logits_V in zip(wanted, logits_BV, strict=True)
        ]
        self.num_steps += 1
        step = TokenStep(
            self,
            self.num_steps,
            torch.zeros((meta.num_rows, self.config.hidden_size)),
            logits_BV,
            self._last,
            is_short,
            self._random.randrange(4),
        )
        self._steps.append(step)
        return step

    def copy(self, move: BlockCopy) -> None:
        """See KvCache."""
        assert all(step.has_ended for step in self._steps)
        source, target = move.source * self._block_size, move.target * self._block_size
        self._held[target : target + move.num_rows] = self._held[source : source + move.num_rows]

    def end_all_before(self, step: TokenStep) -> None:
        for other in self._steps:
            if other is step:
                return
            other.has_ended = True

    def _decoded(self, meta: StepMeta) -> Iterator[list[int]]:
        tables_BW = meta.decode_tables_BW.numpy()
        for table_W, length in zip(tables_BW, meta.decode_lens_B.tolist(), strict=True):
            yield self._seen(table_W, length)

    def _seen(self, table_W: np.ndarray, length: int) -> list[int]:
        positions = np.arange(length)
        slots = table_W[positions // self._block_size] * self._block_size
        found: list[int] = self._held[slots + positions % self._block_size].tolist()
        return found

    def _pick(self, history: list[int], logits_V: Tensor) -> int:
        token = self.tokens.after(history)
        if token is None:
            logits_V[:] = float("nan")
            return -1
        logits_V[token] = 50.0
        return -1 if self.tokens.is_open(history) else token
