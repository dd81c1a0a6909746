"""A service's process ends with status 0 however often it is asked to stop."""

import signal
import subprocess
import sys

import pytest

SERVICE = """
import asyncio, sys, time
from rpc.process.server import until_stopped

async def drain():
    print("draining", flush=True)
    await asyncio.sleep(float(sys.argv[1]))

async def serve():
    asyncio.get_running_loop().call_soon(print, "serving")
    await until_stopped(drain)

asyncio.run(serve())
print("served", flush=True)
time.sleep(float(sys.argv[2]))
"""


RELOADING = """
import asyncio, signal, sys
from rpc.process.server import ignore_hangups, until_stopped

ignore_hangups()
signal.raise_signal(signal.SIGHUP)  # before it serves

async def drain():
    print("draining", flush=True)
    await asyncio.sleep(0.5)

async def serve():
    asyncio.get_running_loop().call_soon(print, "serving")
    await until_stopped(drain, reload=lambda: print("reloaded", flush=True))

asyncio.run(serve())
signal.raise_signal(signal.SIGHUP)  # and after
print("served", flush=True)
"""


def test_a_hangup_reloads_and_never_ends_a_service():
    with subprocess.Popen(
        [sys.executable, "-u", "-c", RELOADING], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "serving\n"
            for _ in range(3):
                process.send_signal(signal.SIGHUP)
                assert process.stdout.readline() == "reloaded\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "draining\n"
            process.send_signal(signal.SIGHUP)
            assert process.wait(20) == 0
            assert "served\n" in process.stdout.read()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("drain_s", "end_s", "seen"),
    [("0", "0", "draining"), ("0", "30", "served"), ("30", "0", "draining")],
    ids=["once", "again while the process ends", "again while it drains"],
)
def test_a_stop_is_clean(number: signal.Signals, drain_s: str, end_s: str, seen: str):
    with subprocess.Popen(
        [sys.executable, "-u", "-c", SERVICE, drain_s, end_s], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "serving\n"
            process.send_signal(number)
            assert f"{seen}\n" in process.stdout, f"it ended without a word of {seen}"
            if drain_s != end_s:
                process.send_signal(number)
            assert process.wait(10) == 0
        finally:
            process.kill()
