"""CUDA streams made of queues: what is put into them runs later, in any order that they allow.

Tensors are on the CPU. Copies, and gathering and scattering, are put into the current stream;
everything else happens at once.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_DEFERRED = (torch.ops.aten.copy_.default, torch.ops.aten.index_copy_.default)


class Record:
    """One recording of an event."""

    done = False


class Event:
    def __init__(self, **_: bool) -> None:
        self.last: Record | None = None

    def record(self, stream: "Stream") -> None:
        record = self.last = Record()
        stream.queue.append(lambda: setattr(record, "done", True) or True)

    def query(self) -> bool:
        return self.last is None or self.last.done

    def elapsed_time(self, other: "Event") -> float:
        assert self.query()
        assert other.query()
        return 1000.0


class Stream:
    """Each thing in its queue returns whether it could run."""

    def __init__(self) -> None:
        self.queue: deque[Callable[[], Any]] = deque()

    def wait_event(self, event: Event) -> None:
        record = event.last
        if record is not None:
            self.queue.append(lambda: record.done)

    def record_event(self) -> Event:
        event = Event()
        event.record(self)
        return event


class Machine(TorchDispatchMode):
    """Inside it, `torch.cuda`'s streams and events are these ones."""

    def __init__(self, patch: Any) -> None:
        super().__init__()
        self.steps = self._current = Stream()
        self._streams = [self.steps]
        patch.setattr(torch.cuda, "Stream", self._make)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "current_stream", lambda device: self.steps)
        patch.setattr(torch.cuda, "stream", self._within)

    def run(self, chance: Random) -> None:
        """Run everything that was put into the streams."""
        haste = chance.random()  # how often the stream of the steps comes first
        while waiting := [stream for stream in self._streams if stream.queue]:
            waiting.sort(key=lambda one: (one is self.steps) is not (chance.random() < haste))
            ran = next((stream for stream in waiting if stream.queue[0]()), None)
            assert ran is not None, "the streams wait for each other"
            ran.queue.popleft()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DEFERRED:
            self._put(lambda: func(*args))
            return args[0]
        if func is torch.ops.aten.index_select.default:
            pages, dim, index = args
            shape = list(pages.shape)
            shape[dim] = len(index)
            out = torch.full(shape, -1, dtype=pages.dtype)
            self._put(lambda: out.copy_(func(pages, dim, index)))
            return out
        return func(*args, **(kwargs or {}))

    def _put(self, work: Callable[[], Any]) -> None:
        self._current.queue.append(lambda: (work(), True)[1])

    def _make(self, device: torch.device) -> Stream:
        self._streams.append(Stream())
        return self._streams[-1]

    @contextmanager
    def _within(self, stream: Stream) -> Iterator[None]:
        before, self._current = self._current, stream
        yield
        self._current = before
