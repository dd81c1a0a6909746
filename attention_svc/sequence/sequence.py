"""What is the state of one request? Known and computed tokens, blocks, and its output."""

import asyncio
import time
from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from attention_svc.grammar.state import Grammar, GrammarVerdict
from attention_svc.sequence.params import SequenceParams
from attention_svc.sequence.prefix_keys import PrefixKeys
from attention_svc.sequence.seen_tokens import SeenTokens


class EmittedToken(NamedTuple):  # of which every step makes one for each row
    """A token and, when asked for, its raw log-probabilities."""

    token_id: int
    logprob: float = 0.0
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SequenceEnd:
    """Why a sequence ended; `reason` is a FinishReason's name without its prefix."""

    reason: str
    stop_token_id: int = 0
    error: str = ""
    retryable: bool = False
    caller_error: bool = False
    """With ERROR: the request itself is the cause."""


@dataclass(slots=True)
class StepTimes:
    """Seconds of one step, by part."""

    attention_s: float = 0.0
    network_s: float = 0.0
    pool_queue_s: float = 0.0
    pool_compute_s: float = 0.0
    sampling_s: float = 0.0
    device_s: float = 0.0  # of a device that computes attention and experts, by its own clock


@dataclass(slots=True)
class TimeSpent(StepTimes):
    """Seconds of all steps of a sequence, by part, and of its waits."""

    queue_s: float = 0.0
    first_token_s: float = 0.0
    steps: int = 0


class Outbox:
    """Tokens for the caller; a slow reader gets several in one event."""

    def __init__(self) -> None:
        self._tokens: list[EmittedToken] = []
        self._prompt: list[EmittedToken] = []
        self._end: SequenceEnd | None = None
        self._changed = asyncio.Event()

    def put(self, token: EmittedToken) -> None:
        self._tokens.append(token)
        self._changed.set()

    def put_prompt(self, score: EmittedToken) -> None:
        """A prompt token with its log-probability; called in order."""
        self._prompt.append(score)
        self._changed.set()

    def take_prompt(self) -> list[EmittedToken]:
        """The prompt's scores since the last call; all come before the first token."""
        scores, self._prompt = self._prompt, []
        return scores

    def close(self, end: SequenceEnd) -> None:
        if self._end is None:
            self._end = end
            self._changed.set()

    async def take(self) -> tuple[list[EmittedToken], SequenceEnd | None]:
        """All tokens since the last call, and the end once the sequence has ended."""
        await self._changed.wait()
        self._changed.clear()
        tokens, self._tokens = self._tokens, []
        return tokens, self._end


@dataclass(slots=True, eq=False)
class PendingVerdict:
    """What a grammar says about the next token, once a thread has computed it."""

    verdict: GrammarVerdict | None = None
    begun: bool = False
    timer: asyncio.TimerHandle | None = None
    """Ends the sequence that waits for it too long."""


@dataclass(slots=True, eq=False)
class Sequence:
    """It has known tokens (prompt, then output) and computed ones (in the KV cache)."""

    request_id: str
    prompt_ids: list[int]
    output_ids: list[int]
    params: SequenceParams
    stop_ids: frozenset[int]
    choice_idx: int = 0
    cache_salt: str = ""
    client_id: str = ""
    """The client whose share of queue, steps and threads it uses."""
    num_computed: int = 0
    block_table: "array[int]" = field(default_factory=lambda: array("q"))
    """An array, so that a step copies it into its tensors without a loop."""
    keys: PrefixKeys | None = None
    """None: takes no part in the prefix cache."""
    num_checked: int = 0
    """Computed tokens found to be finite, which other sequences may share."""
    num_cached: int | None = None
    """Prompt tokens found in the prefix cache at first admission."""
    awaited_key: bytes = b""
    """While waiting: the last key that a running sequence computes for both."""
    claims_tail: bool = False
    waited_elsewhere_s: float = 0.0
    """Wait for experts since its last token, at the services it was moved from."""
    waits_from_s: float = 0.0
    """Start of its wait for experts, on the clock of `ExpertWaits`."""
    waited_s: float = 0.0
    """Set at its end: wait for experts since its last token, other services included."""
    arrival: int = 0
    """Number in the order of arrival, set by the scheduler."""
    received_s: float = field(default_factory=time.monotonic)
    started_s: float = 0.0
    last_token_s: float = 0.0
    finished: bool = False
    num_scored: int = 0
    """Position of the last prompt token whose log-probability was reported."""
    seen: SeenTokens | None = None  # made when a penalty first needs it
    grammar: Grammar | None = None
    pending_verdict: PendingVerdict | None = None
    """About the token after the last known one; None: its grammar was not asked yet."""
    is_ending: bool = False
    """It has all the tokens it may have; its grammar has to say whether they are complete."""
    spent: TimeSpent = field(default_factory=TimeSpent)
    outbox: Outbox = field(default_factory=Outbox)

    @property
    def verdict(self) -> GrammarVerdict | None:
        """What its grammar allows next; None: no grammar, or it has not answered yet."""
        return self.pending_verdict.verdict if self.pending_verdict is not None else None

    @property
    def wants_every_row(self) -> bool:
        """Whether each prompt token has to be computed, as cached ones have no logits."""
        return self.params.prompt_logprobs and not self.output_ids

    @property
    def num_known(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def num_pending(self) -> int:
        """Tokens known but not computed: what a step may work on."""
        return len(self.prompt_ids) + len(self.output_ids) - self.num_computed

    @property
    def awaits_grammar(self) -> bool:
        """Whether only its grammar's answer is missing: no step has work for it."""
        return self.is_ending or not self.num_pending

    def token_at(self, position: int) -> int:
        """A known token."""
        num_prompt = len(self.prompt_ids)
        if position < num_prompt:
            return self.prompt_ids[position]
        return self.output_ids[position - num_prompt]

    def known_slice(self, start: int, count: int) -> list[int]:
        """`count` known tokens from position `start`."""
        num_prompt = len(self.prompt_ids)
        if start >= num_prompt:
            return self.output_ids[start - num_prompt : start - num_prompt + count]
        tokens = self.prompt_ids[start : start + count]
        return tokens + self.output_ids[: count - len(tokens)]
