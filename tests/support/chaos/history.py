"""What did a client see of one request, and was it right?

The promises a fault must not break: every token index exactly once, one terminal event and it
comes last, tokens equal to the oracle's, usage that counts each token once.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from protos import attention_pb2


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request. Stops by nothing but `max_tokens`."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    timeout_ms: int = 0  # 0: the server's default
    salt: str = ""  # prefixes are shared among equal salts only


@dataclass(slots=True)
class History:
    """Everything one client received, in the order of its arrival. Times on time.monotonic()."""

    ask: Ask
    sent_s: float = 0.0
    events: list[tuple[float, int, tuple[int, ...]]] = field(default_factory=list)
    """(arrived_s, index of the first token, tokens)."""
    terminals: list[attention_pb2.Finished] = field(default_factory=list)
    late_events: int = 0
    """That came after a terminal event."""
    status: str = ""
    """CODE: details, when the call ended with an error status instead."""
    ended_s: float = 0.0

    @property
    def tokens(self) -> list[int]:
        return [token for _, _, tokens in self.events for token in tokens]

    @property
    def finished(self) -> bool:
        """It ended as requested."""
        return (
            not self.status
            and len(self.terminals) == 1
            and self.terminals[0].reason == attention_pb2.FINISH_REASON_LENGTH
        )

    @property
    def refused_without_holder(self) -> bool:
        """It began while experts had no holder and was refused at once."""
        return self.status.startswith("UNAVAILABLE: no pool serves") and not self.events

    def gaps(self) -> Iterator[tuple[float, float]]:
        """(start_s, end_s) between arrivals; the first begins when the request was sent."""
        arrivals = [self.sent_s, *(arrived_s for arrived_s, _, _ in self.events)]
        return itertools.pairwise(arrivals)


@dataclass(slots=True)
class Verdict:
    """Problems of all histories together."""

    requests: int = 0
    failed: int = 0
    wrong_tokens: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not self.problems

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(
            self.requests + other.requests,
            self.failed + other.failed,
            self.wrong_tokens + other.wrong_tokens,
            self.problems + other.problems,
        )


def check(history: History, expected: Sequence[int]) -> Verdict:
    """A request that has to finish. `expected`: the oracle's tokens, `max_tokens` of them."""
    verdict = check_prefix(history, expected)
    if not history.finished:
        verdict.failed = 1
        verdict.problems.append(f"it failed: {describe_end(history)}")
        return verdict
    reached = max((index + len(tokens) for _, index, tokens in history.events), default=0)
    missing = history.ask.max_tokens - reached
    if missing > 0:
        verdict.wrong_tokens += missing
        verdict.problems.append(f"{missing} tokens are missing at the end")
    usage = history.terminals[0].usage
    told = (usage.prompt_tokens, usage.generated_tokens)
    if told != (len(history.ask.prompt), history.ask.max_tokens):
        verdict.problems.append(f"usage says {told} prompt and generated tokens")
    if usage.cached_tokens > usage.prompt_tokens:
        verdict.problems.append(f"usage says {usage.cached_tokens} cached prompt tokens")
    return verdict


def check_prefix(history: History, expected: Sequence[int]) -> Verdict:
    """What holds however a request ends: what came is a prefix of the oracle's answer."""
    verdict = Verdict(requests=1)
    position = 0
    for _, index, tokens in history.events:
        if index != position:
            verdict.wrong_tokens += abs(index - position)
            kind = "repeated" if index < position else "lost"
            verdict.problems.append(f"index {index} after {position} tokens: {kind}")
        wrong = [
            at for at, token in enumerate(tokens, index) if list(expected[at : at + 1]) != [token]
        ]
        if wrong:
            verdict.wrong_tokens += len(wrong)
            verdict.problems.append(f"{len(wrong)} wrong tokens from index {wrong[0]}")
        position = index + len(tokens)
    ends = len(history.terminals) + bool(history.status)
    if ends != 1:
        verdict.problems.append(f"{ends} terminal events")
    if history.late_events:
        verdict.problems.append(f"{history.late_events} events after the terminal one")
    return verdict


def describe_end(history: History) -> str:
    """How a request ended, in words."""
    if history.status:
        return history.status
    if not history.terminals:
        return "no terminal event"
    last = history.terminals[-1]
    name = attention_pb2.FinishReason.Name(last.reason).removeprefix("FINISH_REASON_")
    return f"{name} {last.error}".strip()
