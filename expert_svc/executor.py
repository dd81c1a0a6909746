"""In which order do calls compute? One at a time, decode first, callers in turn.

Small calls run inline on the event loop, since changing the thread costs more than they do.
Long ones run on a single compute thread, so that pings and health checks are still
answered. Decode goes before prefill, but a prefill call that has waited
`PREFILL_PATIENCE_S` goes next, at most every second time; callers take turns within a phase.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from expert_svc.calls import Call
from moe_model.device_failures import is_fatal
from moe_model.gpus import use

PREFILL_PATIENCE_S = 0.25

Compute = Callable[[Call], Any]
Deliver = Callable[[Call, Any, int, int], None]
"""(call, result or exception, queue_us, compute_us)"""


class CallQueue:
    """Waiting calls by phase, whose callers take turns. Pure bookkeeping."""

    def __init__(self) -> None:
        self._decode: dict[str, deque[Any]] = {}
        self._prefill: dict[str, deque[Any]] = {}
        self._size = 0
        self._overtook = False  # whether the last item was a prefill

    def __len__(self) -> int:
        return self._size

    def push(self, caller: str, call: Call, item: Any) -> None:
        callers = self._decode if call.is_decode else self._prefill
        callers.setdefault(caller, deque()).append((call.received_s, item))
        self._size += 1

    def pop(self, now_s: float) -> Any:
        """The next item. Raises IndexError when empty."""
        oldest = min((queue[0][0] for queue in self._prefill.values()), default=now_s)
        # An aged prefill goes next, but not twice in a row: a backlog must not starve decode.
        aged = now_s - oldest > PREFILL_PATIENCE_S and not self._overtook
        callers = self._prefill if self._prefill and (aged or not self._decode) else self._decode
        self._overtook = callers is self._prefill
        if not callers:
            raise IndexError("no call is waiting")
        caller = next(iter(callers))
        queue = callers.pop(caller)
        _, item = queue.popleft()
        if queue:
            callers[caller] = queue  # to the end: the next caller's turn
        self._size -= 1
        return item


class Executor:
    """Runs calls through `compute`, one at a time."""

    def __init__(self, compute: Compute, *, inline_rows: int, device: str = "cpu"):
        """`inline_rows`: calls with more rows go to the compute thread. `device`: its GPU."""
        self._compute = compute
        self._inline_rows = inline_rows
        self._queue = CallQueue()
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="compute", initializer=use, initargs=(device,)
        )
        self._wake = asyncio.Event()
        self._busy = False
        self._fatal: Exception | None = None
        self.busy_s = 0.0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def try_inline(self, call: Call) -> tuple[Any, int, int] | None:
        """(result or exception, queue_us, compute_us) when the call may run now, else None.

        Raises fatal errors: the call gets no answer, and `run` ends.
        """
        if self._busy or len(self._queue) or call.num_rows > self._inline_rows:
            return None
        return self._timed(call)

    def submit(self, caller: str, call: Call, deliver: Deliver) -> None:
        """Queue the call; `deliver` is called with its outcome."""
        self._queue.push(caller, call, (call, deliver))
        self._wake.set()

    async def run(self) -> None:
        """Serve the queue until cancelled. Raises fatal errors."""
        loop = asyncio.get_running_loop()
        while True:
            while not len(self._queue) and self._fatal is None:
                self._wake.clear()
                await self._wake.wait()
            if self._fatal is not None:
                raise self._fatal
            call, deliver = self._queue.pop(time.monotonic())
            self._busy = True
            try:
                if call.num_rows > self._inline_rows:
                    outcome = await loop.run_in_executor(self._thread, self._timed, call)
                else:
                    outcome = self._timed(call)
            finally:
                self._busy = False
            deliver(call, *outcome)
            await asyncio.sleep(0)  # let frames in, so that decode can overtake

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _timed(self, call: Call) -> tuple[Any, int, int]:
        start = time.monotonic()
        queue_us = int((start - call.received_s) * 1e6)
        if call.cancelled:
            return asyncio.CancelledError(), queue_us, 0
        if start > call.deadline_s:
            return TimeoutError("timeout_ms passed before the computation started"), queue_us, 0
        try:
            result = self._compute(call)
        # Becomes the call's Error frame; unexpected ones are logged there.
        except Exception as error:
            if is_fatal(error):
                self._fatal = error
                self._wake.set()
                raise
            result = error
        elapsed_s = time.monotonic() - start
        self.busy_s += elapsed_s
        return result, queue_us, int(elapsed_s * 1e6)
