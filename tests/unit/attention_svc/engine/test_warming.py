"""Warming up says how far it is, and nothing where there is nothing to do."""

from collections.abc import Iterator

from attention_svc.engine.warming import warm_up


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_line_every_two_seconds_and_one_at_the_end() -> None:
    clock, lines = Clock(), list[str]()

    def kinds() -> Iterator[int]:
        for left in (4, 3, 2, 1):
            yield left
            clock.now_s += 1.5

    warm_up(kinds(), clock=clock, show=lines.append)
    assert lines == [
        "compiling kernels, 2 of 4 kinds of steps left",
        "ready for 4 kinds of steps after 6.0 s",
    ]


def test_nothing_to_do_is_not_worth_a_line() -> None:
    lines: list[str] = []
    warm_up(iter(()), show=lines.append)
    assert not lines
