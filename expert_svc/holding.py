"""How does a pool come to hold what it is told to? It unloads, loads, and reports when done.

The newest assignment counts: when another one arrives, loading stops after the current layer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from expert_svc.weight_store import WeightStore
from rpc.mesh.pieces import Pieces
from rpc.process.load_progress import LoadProgress

log = logging.getLogger(__name__)


class Superseded(Exception):
    """Loading was stopped: there is a newer assignment, or the pool is leaving."""


class Holding:
    """Carries out assignments: decides on the loop, loads and unloads on a thread."""

    def __init__(
        self,
        store: WeightStore,
        *,
        calls_done: Callable[[], Awaitable[None]],
        changed: Callable[[], Awaitable[None]],
        progress: Callable[[LoadProgress], None],
    ):
        """`calls_done` returns when the calls now in flight are answered; `changed` runs after each
        assignment."""
        self._store = store
        self._calls_done = calls_done
        self._changed = changed
        self._progress = progress
        self._told: tuple[Pieces, int] | None = None
        self._news = asyncio.Event()
        self.leaving = False
        self.acked = 0

    def tell(self, pieces: Pieces, version: int) -> None:
        """Hold exactly `pieces`."""
        self._told = (pieces, version)
        self._news.set()

    async def run(self) -> None:
        """Carry out the newest assignment until cancelled. Raises what loading raises."""
        while True:
            await self._news.wait()
            self._news.clear()
            assert self._told is not None
            pieces, version = self._told
            if self.leaving:
                continue
            started_s = time.monotonic()
            surplus = self._store.pieces - pieces
            missing = pieces - self._store.pieces
            if surplus:
                await self._calls_done()
                await asyncio.to_thread(self._store.unload, surplus)
            try:
                await asyncio.to_thread(self._load, pieces)
            except Superseded:
                continue
            self.acked = version
            log.info(
                "ready: %d pieces, %.1f MiB, %d loaded and %d unloaded in %.1f s",
                len(self._store.pieces),
                self._store.size_bytes / 2**20,
                len(missing),
                len(surplus),
                time.monotonic() - started_s,
            )
            await self._changed()

    def _load(self, pieces: Pieces) -> None:
        piece_bytes = self._store.piece_bytes
        loading = LoadProgress(len(pieces - self._store.pieces) * piece_bytes)

        def layer_done() -> None:
            if self.leaving or self._news.is_set():
                raise Superseded

        def placed() -> None:
            loading.add(piece_bytes)
            self._progress(loading)

        self._store.load(pieces, layer_done, placed)
