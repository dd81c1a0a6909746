"""Pools that keep ending are held back for longer each time; others are not."""

import pytest

from protos import router_pb2
from router_svc.mesh import Mesh
from tests.support.router_svc.mesh import EVERYTHING, READY, mesh_of, register, status

LOADING = router_pb2.MEMBER_STATE_LOADING


class Lives:
    """Processes of pool `a`, one after the other, beside a pool `b` that may hold the same."""

    def __init__(self, *, replica: bool = True):
        self.mesh: Mesh = mesh_of()
        self.now_s = 100.0
        self._incarnation = 0
        if replica:
            other = self.mesh.join(register("b"), "", self.now_s)
            other.reachable = True
            self.mesh.report(other, status(EVERYTHING), self.now_s)

    def start(self) -> None:
        self._incarnation += 1
        message = register("a")
        message.incarnation = self._incarnation
        self.pool = self.mesh.join(message, "", self.now_s)
        self.pool.reachable = True
        self.mesh.report(self.pool, status(EVERYTHING), self.now_s)

    def crash(self, after_s: float) -> None:
        self.now_s += after_s
        self.mesh.leave(self.pool, self.now_s, said_goodbye=False)

    def held_s(self) -> float:
        """Seconds until the topology shows the pool that has just started, in steps of 0.5 s."""
        start_s = self.now_s
        while self._shown_state() != READY:
            self.now_s += 0.5
        return self.now_s - start_s

    def _shown_state(self) -> int:
        self.mesh.new_assignments(self.now_s)
        self.mesh.publish(self.now_s)
        assert self.mesh.book.latest is not None
        return next(p.state for p in self.mesh.book.latest.pools if p.pool_id == "a")

    @property
    def looping(self) -> list[str]:
        return self.mesh.crash_loops.looping(self.now_s)


def pauses(lives: Lives, count: int, life_s: float = 1.0) -> list[float]:
    held = []
    for _ in range(count):
        lives.start()
        held.append(lives.held_s())
        lives.crash(life_s)
    return held


def test_the_pause_begins_after_three_short_lives_and_doubles_to_a_minute():
    lives = Lives()
    assert pauses(lives, 10) == [0, 0, 0, 2, 4, 8, 16, 32, 60, 60]


def test_an_alarm_stands_from_the_third_short_life_until_one_lasts():
    lives = Lives()
    pauses(lives, 2)
    assert lives.looping == []
    pauses(lives, 1)
    assert lives.looping == ["a"]
    lives.start()
    lives.held_s()
    assert lives.looping == ["a"]
    lives.now_s += 10.0
    assert lives.looping == []


def test_a_pool_that_does_not_come_back_is_forgotten():
    lives = Lives()
    pauses(lives, 3)
    lives.now_s += 601.0
    assert lives.looping == []


def test_a_life_that_lasts_ends_the_count():
    lives = Lives()
    pauses(lives, 2)
    pauses(lives, 1, life_s=11.0)
    assert pauses(lives, 3) == [0, 0, 0]


def test_a_pool_that_is_never_ready_loops_too():
    lives = Lives()
    for _ in range(3):
        lives.start()
        lives.mesh.report(lives.pool, status(state=LOADING), lives.now_s)
        lives.crash(60.0)
    pauses(lives, 3, life_s=0.1)
    assert lives.looping == ["a"]


def test_a_goodbye_is_no_crash():
    lives = Lives()
    for _ in range(5):
        lives.start()
        assert lives.held_s() == 0
        lives.mesh.leave(lives.pool, lives.now_s, said_goodbye=True)
    assert lives.looping == []


def test_a_broken_stream_of_the_same_process_is_no_crash():
    lives = Lives()
    for _ in range(5):
        lives.start()
        lives.crash(0.5)
        lives._incarnation -= 1
    lives.start()
    assert lives.held_s() == 0
    assert lives.looping == []


def test_the_only_holder_is_never_held_back_and_says_so_nowhere():
    lives = Lives(replica=False)
    assert pauses(lives, 6) == [0] * 6
    assert lives.looping == ["a"]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_two_that_loop_one_is_shown(order: tuple[str, str]):
    mesh = mesh_of()
    now_s, pools = 0.0, {}
    for life in range(1, 5):
        for name in order:
            message = register(name)
            message.incarnation = life
            pools[name] = mesh.join(message, "", now_s)
            pools[name].reachable = True
            mesh.report(pools[name], status(EVERYTHING), now_s)
        now_s += 1.0
        if life < 4:
            for pool in pools.values():
                mesh.leave(pool, now_s, said_goodbye=False)
    mesh.new_assignments(now_s)
    assert sorted(pool.held_back for pool in pools.values()) == [False, True]
    shown = [pool for pool in pools.values() if not pool.held_back]
    assert shown[0].unready_reason == ""
    assert "held back" in next(pool.unready_reason for pool in pools.values() if pool.held_back)
