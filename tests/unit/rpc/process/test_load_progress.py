"""How far loading is, by a clock that the test turns."""

from rpc.process.load_progress import LOG_INTERVAL_S, LoadProgress

GB = 10**9


class Loading:
    def __init__(self, total_bytes: int):
        self.now_s, self.lines = 100.0, list[str]()
        self.progress = LoadProgress(total_bytes, clock=lambda: self.now_s, show=self.lines.append)

    def add(self, size_bytes: int, in_s: float) -> str:
        self.now_s += in_s
        self.progress.add(size_bytes)
        return str(self.progress)


def test_bytes_rate_and_time_left_are_told() -> None:
    loading = Loading(40 * GB)
    assert str(loading.progress) == "0 %"
    assert loading.add(10 * GB, 5) == "25 %: 10 of 40 GB, 2 GB/s, 15 s left"
    assert loading.add(10 * GB, 15) == "50 %: 20 of 40 GB, 1 GB/s, 20 s left"
    assert loading.progress.ratio == 0.5


def test_a_line_comes_at_most_every_interval() -> None:
    loading = Loading(100 * GB)
    for _ in range(40):
        loading.add(GB, LOG_INTERVAL_S / 4)
    assert len(loading.lines) == 10
    assert loading.lines[0].startswith("loading, 4 %: 4 of 100 GB, 2 GB/s, 48 s left")


def test_an_estimate_that_was_too_low_ends_at_100_percent() -> None:
    loading = Loading(GB)
    assert loading.add(3 * GB, 1) == "100 %: 3 of 1 GB, 3 GB/s, 0 s left"


def test_nothing_to_load_is_no_division_by_zero() -> None:
    assert str(Loading(0).progress) == "0 %"
