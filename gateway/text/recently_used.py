"""Which entries are kept in bounded memory? The most recently used ones."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class RecentlyUsed(Generic[Value]):
    """At most `max_bytes` by what `size_of` says of each entry. Thread-safe."""

    def __init__(self, size_of: Callable[[Value], int], *, max_bytes: int):
        self._size_of = size_of
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Value] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0

    def _get(self, key: bytes) -> Value | None:
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def _put(self, key: bytes, value: Value) -> None:
        with self._lock:
            replaced = self._entries.pop(key, None)
            if replaced is not None:
                self.size_bytes -= self._size_of(replaced)
            self._entries[key] = value
            self.size_bytes += self._size_of(value)
            while self.size_bytes > self._max_bytes:
                _, dropped = self._entries.popitem(last=False)
                self.size_bytes -= self._size_of(dropped)
