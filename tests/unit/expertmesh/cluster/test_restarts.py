"""When a service that died is started again."""

from hypothesis import given
from hypothesis import strategies as st

from expertmesh.cluster.restarts import FIRST_PAUSE_S, LONG_LIFE_S, LONGEST_PAUSE_S, Restarts


def test_pauses_double_for_one_that_dies_soon_and_begin_anew_after_a_long_life() -> None:
    restarts, now_s, pauses = Restarts(), 100.0, []
    for _ in range(9):
        pauses.append(restarts.died("pool-1", "exited", now_s))
        now_s += pauses[-1]
        assert restarts.due(now_s) == ["pool-1"]
        restarts.started("pool-1", now_s)
        now_s += 1.0
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    now_s += LONG_LIFE_S
    assert restarts.died("pool-1", "exited", now_s) == FIRST_PAUSE_S


def test_it_is_away_from_its_death_until_it_is_ready() -> None:
    restarts = Restarts()
    assert not restarts.any_away
    restarts.died("a", "was killed by SIGKILL", 5.0)
    assert restarts.waits("a")
    assert restarts.starting() == []
    assert restarts.due(5.5) == []
    assert restarts.facts("a", 5.5, 1000.0) == {
        "deaths": 1,
        "last_death": "was killed by SIGKILL",
        "away": True,
        "next_start_at": 1000.5,
    }
    restarts.started("a", 6.0)
    assert (restarts.waits("a"), restarts.starting(), restarts.any_away) == (False, ["a"], True)
    restarts.back("a")
    assert (restarts.starting(), restarts.any_away) == ([], False)
    assert restarts.facts("b", 6.0, 1000.0)["deaths"] == 0


@given(lives_s=st.lists(st.floats(0, 1000), max_size=40))
def test_no_service_is_started_more_than_once_a_second_or_waits_for_longer_than_a_minute(
    lives_s: list[float],
) -> None:
    restarts, now_s = Restarts(), 0.0
    for life_s in lives_s:
        pause_s = restarts.died("a", "exited", now_s)
        assert FIRST_PAUSE_S <= pause_s <= LONGEST_PAUSE_S
        restarts.started("a", now_s + pause_s)
        now_s += pause_s + life_s
