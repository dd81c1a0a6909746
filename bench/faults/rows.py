"""Which faults does bench/faults/faults.py cause? Each row starts its mesh and disturbs it."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.faults.rig import (
    CONTROL_S,
    STRIPES_ONCE,
    STRIPES_TWICE,
    MeasuredGatewayRig,
    MeasuredRig,
    Sample,
    percentile,
)
from moe_model.tiny import write_tiny
from tests.support.chaos import network
from tests.support.chaos.history import Ask, check_prefix, describe_end
from tests.support.chaos.proxy import SILENT, Wire
from tests.support.chaos.rig import LOWER, UPPER
from tests.support.chaos.starving import starving
from tests.support.chaos.streams import Request, until

Trials = Iterator[Sample]
"""A row yields one sample per trial, for as long as the caller wants more."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """`control_ms`: a trial whose quiet part has a longer pause is void."""

    run: Callable[[Path], Trials]
    trials: int
    promise: dict[str, float]  # of the result's fields: the most that keeps the promise
    least: dict[str, float] = field(default_factory=dict)  # and the least that does
    control_ms: float = 250.0
    own_network: bool = False


def kill_replica_decode(folder: Path) -> Trials:
    with MeasuredRig(folder, STRIPES_TWICE) as rig:
        turn = 0
        while True:
            victim = turn % 4
            yield rig.trial(rig.pools[victim].kill)
            rig.start_pool(victim)
            rig.connected(4)
            turn += 1


def kill_replica_prefill(folder: Path) -> Trials:
    """Four streams decode; four prompts of 12 chunks come at once, and a pool dies under them.

    A step computes rows of both, so the pause of a prompt shows in the decoding streams.
    """
    with MeasuredRig(folder, STRIPES_TWICE, "--max-batch-tokens", str(CHUNK)) as rig:
        rig.num_streams = 4
        turn = 0
        while True:
            victim = turn % 4
            quiet, usual_ms = _prefill(rig, _long_asks(turn, 0), lambda: None)
            hit, first_ms = _prefill(rig, _long_asks(turn, 1), rig.pools[victim].kill)
            # Normal is what the same prompts did to decoding a moment ago.
            normal = [gap for gaps in quiet.gaps_ms for gap in gaps]
            hit.gap_p99_ms = percentile(normal, 0.99)
            hit.control_pause_ms = max(normal) - hit.gap_p99_ms
            hit.pauses_ms = [max(0.0, max(gaps) - hit.gap_p99_ms) for gaps in hit.gaps_ms]
            hit.verdict += quiet.verdict
            chunk_ms = max(usual_ms) / (4 * PROMPT / CHUNK)
            hit.extra["pause_beyond_a_chunk_ms"] = max(hit.pauses_ms) - chunk_ms
            hit.extra["chunk_ms"] = chunk_ms
            hit.extra["first_token_ratio"] = max(first_ms) / max(usual_ms)
            yield hit
            rig.start_pool(victim)
            rig.connected(4)
            turn += 1


CHUNK, PROMPT = 128, 1500


def _long_asks(turn: int, wave: int) -> list[Ask]:
    """Prompts of 1,500 tokens that share no block with any other."""
    return [
        Ask(
            prompt=tuple(3 + (7 * at + 31 * number + at * at) % 300 for at in range(PROMPT)),
            max_tokens=4,
            salt=f"{turn}-{wave}-{number}",
        )
        for number in range(4)
    ]


def _prefill(
    rig: MeasuredRig, asks: list[Ask], fault: Callable[[], Any]
) -> tuple[Sample, list[float]]:
    """Long prompts beside decoding streams, and their times to the first token in ms."""
    requests: list[Request] = []

    def act() -> None:
        requests.extend(Request(rig.mesh.attention.address, ask) for ask in asks)
        time.sleep(0.3)  # the first chunks are on their way
        fault()
        for request in requests:
            request.wait()

    sample = rig.trial(act, after_s=1.0)
    histories = [request.history for request in requests]
    sample.verdict += rig.oracle.check(histories)
    return sample, [
        1e3 * (history.events[0][0] - history.sent_s) for history in histories if history.events
    ]


def stop_replica(folder: Path) -> Trials:
    with MeasuredRig(folder, STRIPES_TWICE) as rig:
        turn = 0
        while True:
            victim = turn % 4
            process = rig.pools[victim].process

            def stop_and_continue(process: subprocess.Popen = process) -> None:
                process.send_signal(signal.SIGSTOP)
                try:
                    time.sleep(5)
                finally:
                    process.send_signal(signal.SIGCONT)

            failures = rig.failures(kind="timeout")
            sample = rig.trial(stop_and_continue)
            sample.extra["moved_at_timeout"] = rig.failures(kind="timeout") - failures
            sample.extra["used_again_after_s"] = rig.until_used(victim, 45)
            yield sample
            turn += 1


def blackhole(folder: Path) -> Trials:
    """Every packet of a pool's link is dropped, both ways, without a reset."""
    with MeasuredRig(folder, STRIPES_TWICE) as rig:
        links = [_Link(rig, number) for number in range(4)]
        starved = rig.trial(_starved, after_s=1)
        false_alarms = rig.failures() + 4 - rig.metric("expertmesh_pools_connected")
        turn = 0
        while True:
            victim, noticed = turn % 4, []
            link = links[victim]

            def drop(link: _Link = link, noticed: list[float] = noticed) -> None:
                link.drop()
                noticed.append(
                    until(lambda: rig.metric("expertmesh_pools_connected") < 4, 15, 0.05)
                )

            hit = rig.trial(drop, after_s=2)
            link.heal()
            hit.extra = {"noticed_s": noticed[0], "false_alarms": false_alarms}
            if not turn:
                hit.verdict += starved.verdict
            yield hit
            rig.connected(4)
            turn += 1


class _Link:
    """The network to one pool: packet filter rules if we have a namespace, else a proxy."""

    def __init__(self, rig: MeasuredRig, number: int):
        self._proxy = None if network.is_ours() else rig.start_behind_proxy(number)
        self._port = int(rig.pools[number].address.rpartition(":")[2])

    def drop(self) -> None:
        if self._proxy is not None:
            self._proxy.set(up=SILENT, down=SILENT)
        else:
            network.drop(self._port)

    def heal(self) -> None:
        if self._proxy is not None:
            self._proxy.heal()
        else:
            network.heal()


STARVED_S = 30.0


def _starved() -> None:
    """Other processes keep all cores busy."""
    with starving(STARVED_S):
        time.sleep(STARVED_S)


def kill_only_holder(folder: Path) -> Trials:
    with MeasuredRig(folder, STRIPES_ONCE) as rig:
        address = rig.mesh.attention.address
        turn = 0
        while True:
            victim = turn % 2
            short = Ask(prompt=(9, 8, 7), max_tokens=2000, timeout_ms=int(1e3 * (CONTROL_S + 1.5)))
            with_deadline = Request(address, short)
            killed: list[float] = []

            def kill_and_bring_back(victim: int = victim, killed: list[float] = killed) -> None:
                killed.append(time.monotonic())
                rig.pools[victim].kill()
                time.sleep(2)
                rig.start_pool(victim)
                rig.connected(2)
                killed.append(time.monotonic())

            sample = rig.trial(kill_and_bring_back, may_refuse=True)
            sample.extra["outage_ms"] = 1e3 * (killed[1] - killed[0])
            sample.extra["beyond_outage_ms"] = max(sample.pauses_ms) - sample.extra["outage_ms"]
            history = with_deadline.wait()
            known = replace(short, max_tokens=len(history.tokens))
            sample.verdict += check_prefix(history, rig.oracle.tokens(known))
            if not (history.terminals and history.terminals[0].retryable):
                sample.verdict.failed += 1
                sample.verdict.problems.append(f"past its deadline: {describe_end(history)}")
            yield sample
            turn += 1


RE_PREFILL_MS = 250.0
"""Allowed for computing at most 128 tokens again."""


def kill_attention(folder: Path) -> Trials:
    """One of two attention services behind a gateway; half of the streams are on it."""
    with MeasuredGatewayRig(folder) as rig:
        while True:
            moved = rig.gateway_metric("expertmesh_gateway_migrations_total")
            sample = rig.trial(rig.second.kill)
            moved = rig.gateway_metric("expertmesh_gateway_migrations_total") - moved
            sample.extra["moved_streams"] = moved
            yield sample
            rig.start_second()
            rig.gateway_sees(2)


def scale_1_4_2(folder: Path) -> Trials:
    """One pool holds everything; three join, one by one; then two leave."""
    turn = 0
    while True:
        with MeasuredRig(folder, [("--layers", "0-3")]) as rig:
            used: list[float] = []

            def scale(rig: MeasuredRig = rig, used: list[float] = used) -> None:
                for number, flags in ((1, LOWER), (2, UPPER), (3, ("--layers", "0-3"))):
                    rig.start_pool(number, *flags).wait_for("ready: ")
                    used.append(until(lambda number=number: rig.calls(number) > 0, 30, 0.02))
                for number in (0, 3):
                    assert rig.pools[number].stop(30) == 0

            yield rig.trial(scale, extra={"used_after_s": used})
        turn += 1


def rolling_restart(folder: Path) -> Trials:
    with MeasuredRig(folder, STRIPES_TWICE) as rig:

        def restart_all() -> None:
            for number in range(4):
                assert rig.pools[number].stop(30) == 0
                rig.start_pool(number).wait_for("ready: ")
                rig.connected(4)

        while True:
            yield rig.trial(restart_all)


def wrong_weights(folder: Path) -> Trials:
    """A pool with other weights asks to join."""
    write_tiny(folder / "other", seed=99, num_hidden_layers=4, max_position_embeddings=4096)
    with MeasuredRig(folder, STRIPES_ONCE) as rig:
        while True:
            refused: list[int] = []

            def join(refused: list[int] = refused) -> None:
                stranger = rig.mesh.start_pool("--model", str(folder / "other"))
                refused.append(stranger.process.wait(30))

            sample = rig.trial(join, extra={"exit_status": refused})
            sample.verdict.failed += refused != [1]
            yield sample


def mixed_versions(folder: Path) -> Trials:
    """One replica of each stripe speaks the next minor version of the protocol."""
    with MeasuredRig(folder, STRIPES_ONCE) as rig:
        for number, layers in ((2, LOWER), (3, UPPER)):
            rig.start_pool(number, *layers, module="tests.support.chaos.pool_of_next_minor")
        rig.connected(4)
        while True:
            before = [rig.calls(number) for number in range(4)]
            sample = rig.trial(lambda: None)
            calls = [rig.calls(number) - before[number] for number in range(4)]
            sample.extra["share_of_next_minor"] = sum(calls[2:]) / sum(calls)
            yield sample


def slow_replica(folder: Path) -> Trials:
    """Of two equal replicas behind proxies, the one that answers the calls becomes slow."""
    with MeasuredRig(folder, STRIPES_TWICE) as rig:
        proxies = [rig.start_behind_proxy(number) for number in (0, 1)]
        while True:
            before = [rig.calls(number) for number in (0, 1)]
            slowed: list[tuple[int, float]] = []

            def slow(
                before: list[float] = before, slowed: list[tuple[int, float]] = slowed
            ) -> None:
                used = [rig.calls(number) - before[number] for number in (0, 1)]
                busier = used.index(max(used))
                slowed.append((busier, used[busier] / sum(used)))
                proxies[busier].set(down=Wire(delay_s=0.05))
                time.sleep(2)  # the promise counts from here

            sample = rig.trial(slow, after_s=4, settle_s=0)
            ((busier, share),) = slowed
            sample.extra["itl_p99_ratio"] = sample.after_p99_ms / sample.gap_p99_ms
            sample.extra["share_before_it_was_slow"] = share
            proxies[busier].heal()
            yield sample
            rig.until_used(busier)


def packet_loss(folder: Path) -> Trials:
    with MeasuredRig(folder, STRIPES_TWICE) as rig:
        ports = [int(pool.address.rpartition(":")[2]) for pool in rig.pools]
        while True:
            before = rig.ejections()

            def lose() -> None:
                network.lose(ports, 0.01)

            sample = rig.trial(lose, after_s=10)
            network.heal()
            sample.extra["ejections"] = rig.ejections() - before
            yield sample


QUICK = {"pause_p50_ms": 100.0, "pause_p99_ms": 250.0}
ROWS: dict[str, Row] = {
    "kill_replica_decode": Row(
        run=kill_replica_decode, trials=20, promise=QUICK, least={"rate_ratio": 0.9}
    ),
    "kill_replica_prefill": Row(
        run=kill_replica_prefill, trials=20, promise={"pause_beyond_a_chunk_ms": 250.0}
    ),
    "stop_replica": Row(run=stop_replica, trials=20, promise={}),
    "blackhole": Row(
        run=blackhole, trials=20, promise={"noticed_s": 3.0, "false_alarms": 0}, own_network=True
    ),
    "kill_only_holder": Row(run=kill_only_holder, trials=20, promise={}),
    "kill_attention": Row(
        run=kill_attention, trials=20, promise={"pause_p99_ms": 2000.0 + RE_PREFILL_MS}
    ),
    "scale_1_4_2": Row(run=scale_1_4_2, trials=5, promise={"used_after_s": 5.0}),
    "rolling_restart": Row(run=rolling_restart, trials=5, promise={}),
    "wrong_weights": Row(run=wrong_weights, trials=5, promise={}),
    "mixed_versions": Row(run=mixed_versions, trials=5, promise={}),
    "slow_replica": Row(run=slow_replica, trials=5, promise={"itl_p99_ratio": 3.0}),
    "packet_loss": Row(run=packet_loss, trials=5, promise={"ejections": 1.0}, own_network=True),
}  # fmt: skip
