"""Log lines: nothing that others send forges a line, makes a long one, or floods the log."""

import io
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc import logs
from rpc.logs import AUDIT, INDENT, MAX_LINE_CHARS, REPEATS, WINDOW_S, LogHandler, cut, printable

FORGED = "z\n2026-11-28T00:00:00 ERROR router forged line"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d [A-Z]+ test ")


class Log:
    """A logger of its own with the handler of services."""

    def __init__(self, name: str = "some") -> None:
        self.stream, self.now_s = io.StringIO(), 0.0
        self.handler = LogHandler("test", self.stream, clock=lambda: self.now_s)
        self.logger = logging.Logger(name)
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@given(st.text())
def test_an_event_is_one_line_whatever_its_message_quotes(text):
    log = Log()
    log.logger.warning("refused %s: %s", text, text)
    log.logger.warning(text.replace("%", ""))
    written = log.stream.getvalue()
    assert written.count("\n") == 2
    assert len(log.lines) == 2
    assert all(LINE.match(line) for line in log.lines)
    assert written.replace("\n", "").isprintable()
    written.encode()  # lone surrogates too


def test_a_forged_line_is_seen_for_what_it_is():
    log = Log()
    log.logger.info("caller %s joined", FORGED)
    assert log.lines[0].endswith(r"caller z\n2026-11-28T00:00:00 ERROR router forged line joined")


@pytest.mark.parametrize("size", [1_000_000, MAX_LINE_CHARS + 1])
def test_a_long_message_is_cut_and_says_how_long_it_was(size):
    log = Log()
    log.logger.info("%s", "x" * size)
    (line,) = log.lines
    assert len(line) <= MAX_LINE_CHARS + 100
    assert line.endswith(f"... ({size} characters)")


def test_escapes_make_no_line_longer():
    log = Log()
    log.logger.info("%s", "\x00" * 100_000)
    (line,) = log.lines
    assert len(line) <= MAX_LINE_CHARS + 100


def test_a_short_text_is_not_cut():
    assert cut("x" * 10, 10) == "x" * 10
    assert len(cut("x" * 1000, 100)) == 100


@pytest.mark.parametrize("text", ["grüße, 世界", "a b", ""])
def test_what_can_be_seen_is_left_alone(text):
    assert printable(text) is text


def test_what_an_exception_quotes_is_indented_with_its_traceback():
    log = Log()
    try:
        raise ValueError(FORGED + "\r\x1b[2J")
    except ValueError:
        log.logger.exception("failed")
    first, *rest = log.lines
    assert LINE.match(first)
    assert all(line.startswith(INDENT) for line in rest)
    assert any("Traceback" in line for line in rest)
    assert "\x1b" not in log.stream.getvalue()


def test_a_traceback_without_end_is_shortened_in_the_middle():
    log = Log()
    try:
        raise ValueError("\n".join(map(str, range(100_000))))
    except ValueError:
        log.logger.exception("failed")
    assert len(log.lines) < logs.MAX_TRACEBACK_LINES + 10
    assert log.lines[-1] == INDENT + "99999"


def lazily(logger, i: int) -> None:
    logger.warning("refused %r", i)


def formatted_before(logger, i: int) -> None:
    text = f"socket.accept() out of system resource, and so on and on {i}"
    logger.warning(text)


@pytest.mark.parametrize("say", [lazily, formatted_before])
def test_what_is_logged_again_and_again_is_counted(say):
    log = Log()
    for i in range(10_000):
        say(log.logger, i)
        if i % 100 == 0:
            log.logger.info("something else %d", i)
    assert len(log.lines) == REPEATS + REPEATS
    log.now_s = WINDOW_S
    log.logger.info("later")
    *_, refused, other, later = log.lines
    assert f"{10_000 - REPEATS} more lines like this within 10 s" in refused
    assert "WARNING" in refused
    assert f"{100 - REPEATS} more lines like this" in other
    assert later.endswith("later")
    say(log.logger, 1)  # a new window
    assert len(log.lines) == 2 * REPEATS + 4


def test_what_was_left_out_is_told_at_the_end_too():
    log = Log()
    for i in range(REPEATS + 3):
        log.logger.info("again %d", i)
    log.handler.close()
    assert "3 more lines like this" in log.lines[-1]


def test_many_kinds_take_no_memory_without_end(monkeypatch):
    monkeypatch.setattr(logs, "MAX_KINDS", 10)
    log = Log()
    for i in range(1000):
        text = f"{i} is a kind of its own"
        log.logger.info(text)
    assert len(log.handler._repeats._kinds) <= 10


def test_the_audit_of_a_large_mesh_is_not_cut_short():
    log = Log(AUDIT)
    for i in range(1000):
        log.logger.info("joined: pool %d", i)
    assert len(log.lines) == 1000


def test_every_logger_and_warning_of_a_process_goes_the_same_way(monkeypatch, capsys):
    root = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(logging.Logger, "root", root)
    monkeypatch.setattr(logging.Logger, "manager", logging.Manager(root))
    monkeypatch.setattr(logging, "captureWarnings", lambda on: None)
    logs.configure_logging("test", "info")
    for name in ("uvicorn.error", "asyncio", "py.warnings", "router_svc.joining"):
        logging.getLogger(name).error("of %s: %s", name, FORGED)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(LINE.match(line) for line in lines)
