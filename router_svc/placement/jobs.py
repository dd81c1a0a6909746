"""Where are plans computed, and is a finished one still valid?

A plan for 1,000 pools takes seconds, during which the event loop has to answer heartbeats. So it
is computed from a snapshot, on another thread; its outcome is taken on the loop.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from router_svc.placement.board import Host

MAX_REDONE = 3
"""How many plans in a row are thrown away because hosts changed in the meantime. The next one is
used for the hosts that did not change, or none ever would where pools keep coming and going."""


class Inline(Executor):
    """Computes at once, in the caller's thread: for tests, and where blocking does no harm."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # `result` raises it
            future.set_exception(error)
        return future


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """What to compute, from which hosts, and what to do with the outcome."""

    hosts: Sequence[Host]
    compute: Callable[[], Any]
    take: Callable[[Any, set[str]], None]  # with the ids of the unchanged hosts
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
