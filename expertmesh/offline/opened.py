"""What do `LLM` and `AsyncLLM` share? A backend on a loop of its own, and how requests become jobs.

It closes itself when nobody refers to it any more, and when the interpreter exits, for scripts that
never call close().
"""

import itertools
import random
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from dataclasses import fields
from typing import Any

from expertmesh.offline.arguments import note_ignored, note_unknown
from expertmesh.offline.backend import Backend, Job
from expertmesh.offline.loop_thread import LoopThread
from expertmesh.offline.prompts import as_conversations, as_params, as_prompts
from expertmesh.offline.run import prepare_chats, prepare_prompts, run_jobs
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.outputs import RequestOutput

_PER_CALL = {
    "lora_request": "adapters are not supported",
    "priority": "first come, first served",
    "mm_processor_kwargs": "text only",
    "chat_template_content_format": "the template takes every form",
    "tokenization_kwargs": "the tokenizer takes none",
    "trace_headers": "nothing is traced",
    "data_parallel_rank": "there is one engine",
}
"""Arguments of single calls that have no effect here -> why."""
_SAMPLING = frozenset(field.name for field in fields(SamplingParams))


class Opened:
    """Several threads and loops may use it at once; their requests share the engine's batches."""

    def __init__(
        self,
        loop: LoopThread,
        backend: Backend,
        *,
        default_params: SamplingParams,
        parallel: int,
        seed: int | None,
        control_tokens: bool,
    ):
        """`seed`: of the generator that seeds requests without a seed of their own."""
        self.loop = loop
        self.backend = backend
        self.default_params = default_params
        self.parallel = parallel
        self._control_tokens = control_tokens
        self._seeds = random.Random(seed)
        self._request_numbers = itertools.count()
        self._noted: set[str] = set()
        self._finalizer = weakref.finalize(self, _close, loop, backend)

    def close(self) -> None:
        """Cancel what runs, free the engine, end its threads. May be called twice."""
        self._finalizer()

    def check_call(self, arguments: dict[str, Any], where: str) -> None:
        """Log each argument without effect once.

        Raises RuntimeError when closed, TypeError for what belongs into the sampling parameters.
        """
        if not self._finalizer.alive:
            raise RuntimeError("this LLM is closed")
        for name, value in arguments.items():
            if name in _SAMPLING:
                raise TypeError(f"{where}: {name} belongs into SamplingParams")
            if value is not None and name not in self._noted:
                self._noted.add(name)
                if name in _PER_CALL:
                    note_ignored({name: value}, _PER_CALL, where)
                else:
                    note_unknown([name], _PER_CALL, where)

    def generate_jobs(self, prompts: Any, params: Any) -> Coroutine[Any, Any, list[Job]]:
        """For the loop. Raises TypeError or ValueError naming the bad one."""
        given = as_prompts(prompts)
        each = as_params(params, len(given), self.default_params)
        return prepare_prompts(
            self.backend, given, each, self._numbered(each), control_tokens=self._control_tokens
        )

    def chat_jobs(
        self, messages: Any, params: Any, tools: Sequence[Any] | None
    ) -> Coroutine[Any, Any, list[Job]]:
        """For the loop. Raises TypeError or ValueError naming the bad one."""
        conversations = as_conversations(messages)
        each = as_params(params, len(conversations), self.default_params)
        return prepare_chats(self.backend, conversations, each, self._numbered(each), tools or ())

    def stream(self, jobs: Sequence[Job]) -> AsyncGenerator[RequestOutput, None]:
        """For the loop: outputs as they grow."""
        return run_jobs(self.backend, jobs, self.parallel)

    def iterate(self, jobs: Sequence[Job]) -> Iterator[RequestOutput]:
        """The same for a plain caller; it stays open until its last iteration has ended."""
        yield from self.loop.iterate(self.stream(jobs))

    def _numbered(self, params: Sequence[SamplingParams]) -> list[tuple[str, int]]:
        """(request id, seed) of each request."""
        return [
            (
                str(next(self._request_numbers)),
                one.seed if one.seed is not None else self._seeds.getrandbits(63),
            )
            for one in params
        ]


def _close(loop: LoopThread, backend: Backend) -> None:
    if loop.alive:
        loop.cancel_all()  # first, so that no request sees the engine close
        loop.run(backend.close())
        loop.close()
