"""Are our caps below the process's limit of open files, and does the log stay readable?"""

import asyncio
import errno
import logging
import re
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.http.server import fit_to_open_files
from gateway.limits import Limits
from rpc.process import open_files
from rpc.process.open_files import (
    AcceptErrors,
    descriptors_in_use,
    fitting,
    open_file_limit,
    raise_open_files,
)

IN_USE = 20


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """The process's own, put back at the end."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is open in a service that starts, much in a process that has run many tests."""
    monkeypatch.setattr(open_files, "descriptors_in_use", lambda: IN_USE)


def test_what_is_open_is_counted() -> None:
    before = descriptors_in_use()
    with socket.socket():
        assert descriptors_in_use() == before + 1
    assert descriptors_in_use() == before


def test_the_soft_limit_is_lifted_to_the_hard_one(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    raise_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])


def test_a_limit_that_cannot_be_lifted_is_told(
    limits: tuple[int, int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("not allowed to raise maximum limit")

    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    monkeypatch.setattr(open_files.resource, "setrlimit", refuse)
    raise_open_files()
    monkeypatch.undo()
    assert "stays at 512" in caplog.text
    assert open_file_limit() == 512


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize("limit", [96, 256, 1024, 4096])
def test_caps_fit_below_the_limit_with_room_for_the_rest(
    limits: tuple[int, int], limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
    cap = fitting(5000, "connections", beside=16)
    assert 0 < cap <= limit - IN_USE - 16
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{cap} instead of 5000" in record.getMessage()
    assert str(limit) in record.getMessage()


@pytest.mark.usefixtures("fresh_process")
def test_what_fits_is_not_lowered_or_told(
    limits: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, limits[1]))
    assert fitting(500, "connections") == 500
    assert not caplog.records


@pytest.mark.usefixtures("fresh_process")
def test_no_room_at_all_is_refused_with_what_to_do(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, limits[1]))
    with pytest.raises(ValueError, match=r"open files.*ulimit -n"):
        fitting(100, "connections", beside=16)


@pytest.mark.usefixtures("fresh_process")
def test_the_share_of_an_address_is_lowered_with_the_cap(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    fitted = fit_to_open_files(Limits(max_connections=4000, max_connections_per_address=1000))
    assert fitted.max_connections < 900
    assert fitted.max_connections_per_address == fitted.max_connections // 4


def test_failing_accepts_are_told_once_in_a_while_and_other_errors_as_always(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    handler = AcceptErrors(lambda: now_s)
    loop = asyncio.new_event_loop()
    try:
        with socket.socket() as sock:
            error = OSError(errno.EMFILE, "Too many open files")
            context = {"message": "accept failed", "exception": error, "socket": sock}
            for _ in range(5000):
                handler(loop, context)
                now_s += 0.01
            assert 5 <= len(caplog.records) <= 6
            assert re.search(r"\(\d{3,4} more since", caplog.records[1].getMessage())
            caplog.clear()
            handler(loop, {"message": "a bug", "exception": RuntimeError("boom")})
            handler(loop, {"message": "a reset", "exception": OSError(errno.ECONNRESET, "reset")})
        assert [record.getMessage() for record in caplog.records] == ["a bug", "a reset"]
    finally:
        loop.close()
