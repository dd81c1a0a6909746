"""The service's side of `grammar_check`: a process that is started when needed and killed when late."""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

from attention_svc.grammar_limits import CHECK_TIMEOUT_S

_SAFE_PATH = ("-P",) if sys.flags.safe_path else ()
"""Whether the working directory may hold modules: as for this process."""
TOO_COSTLY = "compiling it takes too much time or memory; simplify it"


class GrammarChecker:
    """One check at a time; the caller sees to that."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def check(self, text: str) -> str:
        """What is wrong with the grammar, or ""."""
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, *_SAFE_PATH, "-m", "attention_svc.grammar_check",
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
            )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                process.stdin.write(json.dumps(text).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except (TimeoutError, ConnectionError):
            pass  # as with an end of output: it could not answer
        finally:
            if not line.endswith(b"\n"):  # also when cancelled: its answer would be the next one's
                await self.close()
        return str(json.loads(line)) if line else TOO_COSTLY

    async def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
