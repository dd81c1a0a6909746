"""Where are plans computed, and does a finished one still count? Not on the event loop.

A plan for 1,000 pools takes seconds, in which leases and heartbeats have to be answered. So it
is computed from a snapshot, on a thread of its own; what comes of it is taken on the loop.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from router_svc.placement.board import Host

MAX_REDONE = 3
"""Plans in a row that are thrown away because hosts have changed meanwhile. The next one counts
for the hosts that have not: where pools come and go all the time, some plan has to."""


class Inline(Executor):
    """Computes at once, in the caller's thread: for tests, and where nobody else waits."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # whoever asks for the result gets it
            future.set_exception(error)
        return future


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """What is computed, from which hosts, and what becomes of it."""

    hosts: Sequence[Host]
    compute: Callable[[], Any]
    take: Callable[[Any, set[str]], None]  # with the ids of the hosts that are as they were
    again: Callable[[], None]  # the hosts have changed: what to do instead


class Planning:
    """One job at a time."""

    def __init__(self, executor: Executor):
        self.executor = executor
        self.when_done: Callable[[], None] = lambda: None
        self._under_way: tuple[PlanJob, Future[Any]] | None = None
        self._redone = 0

    @property
    def busy(self) -> bool:
        return self._under_way is not None

    def begin(self, job: PlanJob) -> None:
        assert not self.busy
        future = self.executor.submit(job.compute)
        self._under_way = job, future
        future.add_done_callback(lambda _: self.when_done())

    def collect(self, current: Callable[[], Sequence[Host]]) -> None:
        """If a job is done, take its outcome; `current` gives the hosts as they are now.

        Raises what computing it has raised.
        """
        if self._under_way is None or not self._under_way[1].done():
            return
        job, future = self._under_way
        self._under_way = None
        outcome, hosts = future.result(), current()
        changed = list(job.hosts) != list(hosts)
        if not changed or self._redone >= MAX_REDONE:
            now = {host.pool_id: host for host in hosts}
            job.take(outcome, {host.pool_id for host in job.hosts if now.get(host.pool_id) == host})
            self._redone = 0
        else:
            self._redone += 1
        if changed:
            job.again()
