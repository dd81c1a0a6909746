"""Files that change: which versions are taken, and what is logged."""

import logging
import os

import pytest

from rpc.watched import SETTLE_S, Watched


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "number"
    path.write_text("1")
    return path


def number(path) -> int:
    try:
        return int(path.read_text())
    except OSError as error:
        raise ValueError(str(error)) from None


def watched(path, clock=None) -> Watched:
    return Watched([path], lambda: number(path), what="--number", clock=clock or Clock())


def replace(path, text: str) -> None:
    """As a careful writer does it; the new file's times may equal the old one's."""
    times = os.stat(path)
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(fresh, path)


def test_a_replaced_file_is_taken_at_the_next_look_even_with_the_same_times(file, caplog):
    caplog.set_level(logging.INFO)
    value = watched(file)
    replace(file, "2")
    assert value.get() == 2
    assert value.changes == 1
    assert caplog.messages == ["--number: read again"]


def test_a_touched_file_with_the_same_content_is_no_change(file, caplog):
    caplog.set_level(logging.INFO)
    value = watched(file)
    os.utime(file, ns=(1, 1))
    assert value.get() == 1
    assert (value.changes, caplog.messages) == (0, [])


@pytest.mark.parametrize("broken", ["no number", "", None])
def test_what_cannot_be_read_leaves_the_old_value_and_is_told_once(file, broken, caplog):
    clock = Clock()
    value = watched(file, clock)
    if broken is None:
        file.unlink()
    else:
        replace(file, broken)
    assert value.get() == 1
    assert not caplog.messages  # its writer may not be done
    clock.now_s += SETTLE_S
    for _ in range(3):
        assert value.get() == 1
    assert len(caplog.messages) == 1
    assert "--number: the new files are not used" in caplog.messages[0]
    file.write_text("33")
    assert value.get() == 33


def test_a_signal_tells_at_once(file, caplog):
    value = watched(file)
    replace(file, "nothing")
    value.reload()
    value.reload()
    assert len(caplog.messages) == 1


def test_a_file_that_becomes_readable_without_changing_again_is_taken(file):
    """The last of several files may be replaced between the check and the reading."""
    clock, readable = Clock(), [True]

    def read() -> int:
        if not readable[0]:
            raise ValueError("not yet")
        return number(file)

    value = Watched([file], read, what="--number", clock=clock)
    readable[0] = False
    replace(file, "2")
    assert value.get() == 1
    readable[0] = True
    assert value.get() == 2


def test_what_is_bad_from_the_beginning_is_the_callers_to_hear_of(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        watched(tmp_path / "absent")
