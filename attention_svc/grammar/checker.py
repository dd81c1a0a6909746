"""How is a grammar tried out in another process (`child.py`), which is killed when it is late?"""

import asyncio
import contextlib
import json
import logging
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

from attention_svc.grammar.limits import CHECK_TIMEOUT_S, COMPILE_CPU_S
from rpc.errors import Overloaded

log = logging.getLogger(__name__)

_SAFE_PATH = ("-P",) if sys.flags.safe_path else ()
"""As this process: whether modules are also imported from the working directory."""
_NO_TIME = "the grammar could not be compiled in time; try again later"
TOO_COSTLY = "compiling it takes too much time or memory; simplify it"


class GrammarChecker:
    """The caller makes one check at a time."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the process, unless it is running.

        Raises:
            Overloaded: it got too little time to start.
            RuntimeError: it ended by itself.
        """
        if self._process is not None and self._process.returncode is None:
            return
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *_SAFE_PATH,
            "-m",
            "attention_svc.grammar.child",
            str(self._vocab_size),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
        )
        ready = b""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                ready = await self._answer(self._process, b"")
        except TimeoutError:
            raise Overloaded(_NO_TIME) from None
        finally:
            if not ready:
                await self.close()
        if not ready:
            raise RuntimeError("the process that checks grammars did not start")

    async def check(self, text: str) -> str:
        """What is wrong with the grammar, or "". The same text always gets the same answer.

        Raises:
            Overloaded: not known, because the process got too little time.
        """
        line = b""
        ended = None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self.start()
                assert self._process is not None
                line = await self._answer(self._process, json.dumps(text).encode() + b"\n")
                if not line:
                    ended = await self._process.wait()
        except TimeoutError:
            raise Overloaded(_NO_TIME) from None
        finally:
            if not line:  # also when cancelled: the next check would read its answer
                await self.close()
        if line:
            error, cpu_s = json.loads(line)
            return str(error) or (TOO_COSTLY if cpu_s > COMPILE_CPU_S else "")
        try:
            await self.start()  # the request that ended the process waits for the new one
        except (Overloaded, RuntimeError) as error:  # if this continues, the next request is told
            log.warning("no new process after a grammar that was too costly: %s", error)
        if ended == -signal.SIGKILL:  # not by one of its own limits
            raise Overloaded(_NO_TIME)
        return TOO_COSTLY

    async def _answer(self, process: Process, question: bytes) -> bytes:
        """The next line that it writes; empty when it has ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(question)
            await process.stdin.drain()
        except ConnectionError:
            return b""
        line = await process.stdout.readline()
        return line if line.endswith(b"\n") else b""

    async def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
