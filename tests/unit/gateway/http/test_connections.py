"""Which connections are kept and which are closed? The table alone, without sockets."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.connections import ConnectionTable, Standing, address_group
from gateway.limits import Limits
from tests.support.examples import examples

LIMITS = Limits(max_connections=6, max_connections_per_address=4, probe_connections=3)


@dataclass(eq=False)
class Fake:
    address_group: str = "10.0.0.1"
    standing: Standing = Standing.STRANGER
    gone: list["Fake"] = field(default_factory=list)

    def give_way(self) -> None:
        self.gone.append(self)


class Scene:
    """A table and what left it."""

    def __init__(self) -> None:
        self.table = ConnectionTable(LIMITS)
        self.gone: list[Fake] = []

    def come(self, host: str = "a", standing: Standing = Standing.STRANGER) -> Fake:
        connection = Fake(host, standing, self.gone)
        self.table.admit(connection)
        return connection


def test_strangers_give_way_before_idle_ones_and_the_longest_unused_first() -> None:
    scene = Scene()
    known = scene.come(standing=Standing.IDLE)
    first, second = scene.come(), scene.come()
    served = scene.come(standing=Standing.SERVED)
    scene.table.answered(first)
    scene.come(standing=Standing.SERVED)
    scene.come(standing=Standing.SERVED)
    scene.come(standing=Standing.SERVED)
    assert scene.gone == [second, first, known]
    assert served.standing is Standing.SERVED


def test_an_address_at_its_cap_takes_no_place_from_others() -> None:
    scene = Scene()
    other = scene.come("b")
    for _ in range(20):
        scene.come("a")
    assert other not in scene.gone
    assert scene.table.open == 5


def test_whoever_holds_the_most_loses_first() -> None:
    scene = Scene()
    oldest = scene.come("b")
    many = [scene.come("a") for _ in range(4)]
    scene.come("c")
    scene.come("d")
    assert scene.gone == [many[0]]
    assert oldest not in scene.gone


def test_where_nobody_gives_way_there_are_places_for_probes() -> None:
    scene = Scene()
    for _ in range(4):
        scene.come("a", Standing.SERVED)
    probes = [scene.come("a") for _ in range(5)]
    assert scene.gone == probes[:2], "the newest probes stay"
    assert not scene.table.promote(probes[-1])
    scene.table.remove(scene.gone[0])
    assert scene.table.open == 4 + 3


def test_a_probes_place_becomes_a_regular_one_when_there_is_room() -> None:
    scene = Scene()
    served = [scene.come("a", Standing.SERVED) for _ in range(4)]
    late = scene.come("a")
    assert not scene.table.promote(late)
    scene.table.remove(served[0])
    assert scene.table.promote(late)
    assert scene.table.promote(late), "it has one already"
    assert scene.table.open == 4


@examples(300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "leave", "answer", "ask"]),
            st.sampled_from("abc"),
            st.sampled_from(list(Standing)),
            st.integers(0, 30),
        ),
        max_size=60,
    )
)
def test_whatever_happens_the_caps_hold_and_the_served_stay(
    events: list[tuple[str, str, Standing, int]],
) -> None:
    scene = Scene()
    present: list[Fake] = []
    for kind, host, standing, index in events:
        if kind == "come":
            present.append(scene.come(host, standing))
        elif present:
            connection = present[index % len(present)]
            if kind == "leave":
                present.remove(connection)
                scene.table.remove(connection)
            elif kind == "answer":
                scene.table.answered(connection)
            else:
                scene.table.promote(connection)
        gave_way = [c for c in present if c in scene.gone]
        for connection in gave_way:
            # A connection being served keeps a regular place; the newest keeps one for probes.
            present.remove(connection)
            scene.table.remove(connection)
        regular = scene.table._of_address
        assert all(len(of) <= LIMITS.max_connections_per_address for of in regular.values())
        assert sum(map(len, regular.values())) <= LIMITS.max_connections
        assert len(scene.table._probes) <= LIMITS.probe_connections
        assert scene.table.open == len(present)


@pytest.mark.parametrize(
    "host, group",
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_client_counts_by_its_network(host: str, group: str) -> None:
    assert address_group(host) == group
