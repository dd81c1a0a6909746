"""The chaos tests' tools find the problems they look for, and break what they should."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from protos import attention_pb2
from tests.support.chaos import network
from tests.support.chaos.history import Ask, History, check
from tests.support.chaos.proxy import SILENT, FaultProxy, Wire
from tests.support.chaos.streams import until

NO_NETWORK = network.unavailable()
ASK = Ask(prompt=(5, 6), max_tokens=4)
EXPECTED = [1, 2, 3, 4]
DONE = attention_pb2.Finished(
    reason=attention_pb2.FINISH_REASON_LENGTH,
    usage=attention_pb2.Usage(prompt_tokens=2, generated_tokens=4),
)


def history(*events: tuple[int, tuple[int, ...]], **fields: object) -> History:
    fields.setdefault("terminals", [DONE])
    return History(ASK, events=[(0.0, *event) for event in events], **fields)


def test_a_sound_history_has_no_problem():
    verdict = check(history((0, (1,)), (1, (2, 3)), (3, (4,))), EXPECTED)
    assert (verdict.right, verdict.failed, verdict.wrong_tokens) == (True, 0, 0)


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([(0, (1, 2)), (1, (2, 3, 4))], 1),  # repeated
        ([(0, (1,)), (2, (3, 4))], 1),  # lost
        ([(0, (1, 2, 7, 4))], 1),  # another one
        ([(0, (1, 2, 3))], 1),  # the last one missing
        ([(0, (1, 2, 3, 4, 5))], 1),  # one too many
        ([(2, (3, 4)), (0, (1, 2))], 6),  # out of order
    ],
)
def test_lost_repeated_and_wrong_tokens_are_counted(events, wrong: int):
    assert check(history(*events), EXPECTED).wrong_tokens == wrong


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({"terminals": []}, 1),
        ({"terminals": [DONE, DONE]}, 1),
        ({"status": "UNAVAILABLE: gone"}, 1),
        ({"terminals": [attention_pb2.Finished(reason=attention_pb2.FINISH_REASON_ERROR)]}, 1),
        ({"late_events": 1}, 0),
        ({"terminals": [attention_pb2.Finished(reason=DONE.reason)]}, 0),  # usage
    ],
)
def test_ends_and_usage_are_checked(fields, failed: int):
    verdict = check(history((0, (1, 2, 3, 4)), **fields), EXPECTED)
    assert not verdict.right
    assert verdict.failed == failed


class Ends:
    """A client and a server with the proxy between them."""

    def __init__(self, proxy: FaultProxy):
        self.proxy = proxy
        self._accepted: asyncio.Queue = asyncio.Queue()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The client's; the server's are `reader` and `writer`."""
        server = await asyncio.start_server(
            lambda *pair: self._accepted.put_nowait(pair), "127.0.0.1", 0
        )
        self.proxy.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = await asyncio.open_connection(*self.proxy.address.split(":"))
        self.reader, self.writer = await self._accepted.get()
        server.close()
        return client


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    with FaultProxy(seed=1) as proxy:
        yield Ends(proxy)


async def test_a_clean_wire_passes_everything_both_ways(ends: Ends):
    reader, writer = await ends.connect()
    writer.write(b"up")
    assert await ends.reader.readexactly(2) == b"up"
    ends.writer.write(b"down")
    ends.writer.close()
    assert await reader.read() == b"down"


async def test_a_silent_wire_tells_nobody_and_delivers_later(ends: Ends):
    reader, _ = await ends.connect()
    ends.proxy.set(down=SILENT)
    await asyncio.sleep(0.02)
    ends.writer.write(b"late")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(4), 0.1)
    ends.proxy.heal()
    assert await asyncio.wait_for(reader.readexactly(4), 5) == b"late"


async def test_flips_change_bits_and_no_sizes(ends: Ends):
    reader, _ = await ends.connect()
    ends.proxy.set(down=Wire(flip_ratio=1.0))
    ends.writer.write(bytes(64))
    damaged = await asyncio.wait_for(reader.readexactly(64), 5)
    assert sum(byte.bit_count() for byte in damaged) == ends.proxy.flipped >= 1


async def test_a_cut_ends_the_connection_in_mid_chunk(ends: Ends):
    reader, _ = await ends.connect()
    ends.proxy.set(down=Wire(cut=True))
    ends.writer.write(bytes(64))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(64), 5)


async def test_a_half_close_leaves_the_other_direction_open(ends: Ends):
    reader, writer = await ends.connect()
    ends.proxy.set(down=Wire(half_close=True))
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.write(b"still")
    assert await asyncio.wait_for(ends.reader.readexactly(5), 5) == b"still"


STARTS_A_SERVICE = """
import time
from tests.support.mesh import ServiceProcess
print(ServiceProcess("http.server", ["0", "--bind", "127.0.0.1"]).process.pid, flush=True)
time.sleep(60)
"""


def gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
def test_services_end_when_their_test_is_killed():
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_SERVICE], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    service = psutil.Process(int(starter.stdout.readline()))
    # It has requested its end once it is not setpriv; on the way there it has no command line.
    until(lambda: (line := service.cmdline()) and "setpriv" not in line[0], 10)
    starter.kill()
    starter.wait(10)
    until(lambda: gone(service.pid), 10)


@pytest.mark.skipif(bool(NO_NETWORK), reason=NO_NETWORK)
def test_a_program_in_a_network_of_our_own_is_asked_to_end_first():
    code = "import signal; signal.signal(15, lambda *_: exit(3)); print(flush=True); signal.pause()"
    inside = subprocess.Popen(
        network.python_inside("-c", code), env=network.environment_inside(), stdout=subprocess.PIPE
    )
    assert inside.stdout is not None
    inside.stdout.readline()
    network.stop(inside, 10)
    assert inside.returncode == 3


@pytest.mark.skipif(bool(NO_NETWORK), reason=NO_NETWORK)
def test_everything_in_a_network_of_our_own_ends_with_it():
    code = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True); input()"
    inside = subprocess.Popen(
        network.python_inside("-c", code),
        env=network.environment_inside(),
        stdin=subprocess.PIPE,
    )
    until(lambda: len(_below(inside.pid)) == 2, 10)
    everything = _below(inside.pid)
    inside.kill()
    inside.wait(10)
    until(lambda: all(map(gone, everything)), 10)


def _below(pid: int) -> list[int]:
    """All descendants of this process."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
