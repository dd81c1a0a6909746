"""How much memory do tensors take at the same time, that some code makes?"""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """`most_bytes`: of storages that were made within it and were there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most_bytes = self._bytes = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {
            one.untyped_storage()._cdata
            for one in tree_leaves((args, kwargs))
            if isinstance(one, torch.Tensor)
        }
        found = operator(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, torch.Tensor):
                self._note(one.untyped_storage(), given)
        return found

    def _note(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        if storage._cdata in given or storage._cdata in self._seen:
            return
        self._seen.add(storage._cdata)
        self._bytes += storage.nbytes()
        self.most_bytes = max(self.most_bytes, self._bytes)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, number: int, size_bytes: int) -> None:
        self._seen.discard(number)
        self._bytes -= size_bytes
