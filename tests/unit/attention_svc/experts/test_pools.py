"""Which pool serves which piece, as topologies and links come and go."""

from collections.abc import Callable

import numpy as np
import pytest

from attention_svc.experts.health import PoolHealth
from attention_svc.experts.pools import PoolSet
from protos import router_pb2
from rpc.mesh.pieces import Pieces

LAYERS, EXPERTS = 4, 6


class FakeLink:
    """A link whose stream the test opens and breaks."""

    def __init__(self, pool_id: str, address: str, on_change: Callable[[], None]):
        self.pool_id = pool_id
        self.address = address
        self.usable = False
        self.stopped = False
        self.health = PoolHealth()
        self.generation = 1
        self.numerics_id = "n"
        self.predicted_s = 0.001
        self._on_change = on_change

    def start(self) -> None:
        self.set_usable(True)

    def set_usable(self, usable: bool) -> None:
        self.usable = usable
        self._on_change()

    async def stop(self) -> None:
        self.stopped = True


class Fixture:
    def __init__(self) -> None:
        self.links: list[FakeLink] = []
        self.pools = PoolSet(LAYERS, EXPERTS, self._make)
        self._counter = 0

    def _make(self, pool_id: str, address: str, on_change: Callable[[], None]) -> FakeLink:
        self.links.append(FakeLink(pool_id, address, on_change))
        return self.links[-1]

    def apply(self, *entries: router_pb2.PoolEntry) -> None:
        self._counter += 1
        version = router_pb2.Version(epoch=1, counter=self._counter)
        self.pools.apply(router_pb2.Topology(version=version, pools=entries))

    def owners(self, layer_idx: int) -> list[str]:
        layer = self.pools.layers[layer_idx]
        return [layer.links[i].pool_id if i >= 0 else "" for i in layer.owner_E]


def entry(
    pool_id: str, pieces: Pieces, *, incarnation: int = 1, draining: bool = False
) -> router_pb2.PoolEntry:
    state = router_pb2.MEMBER_STATE_DRAINING if draining else router_pb2.MEMBER_STATE_READY
    return router_pb2.PoolEntry(
        pool_id=pool_id,
        incarnation=incarnation,
        address=f"{pool_id}:1",
        pieces=pieces.to_message(),
        state=state,
    )


ALL = Pieces.all_of(LAYERS, EXPERTS)
LOW, HIGH = Pieces.grid(range(LAYERS), range(3)), Pieces.grid(range(LAYERS), range(3, EXPERTS))


async def test_no_pool_means_every_piece_is_missing() -> None:
    fixture = Fixture()
    assert fixture.pools.missing() == dict.fromkeys(range(LAYERS), EXPERTS)
    fixture.apply(entry("a", LOW))
    assert fixture.pools.missing() == dict.fromkeys(range(LAYERS), 3)
    fixture.apply(entry("a", LOW), entry("b", HIGH))
    assert fixture.pools.missing() == {}
    assert fixture.owners(0) == ["a"] * 3 + ["b"] * 3
    assert fixture.pools.layers[0].sole is None


async def test_layers_of_equal_replicas_alternate_and_stay_with_one_pool() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL), entry("b", ALL))
    owners = [set(fixture.owners(layer)) for layer in range(LAYERS)]
    assert owners == [{"a"}, {"b"}, {"a"}, {"b"}]
    assert all(layer.sole is not None for layer in fixture.pools.layers)


async def test_broken_link_moves_its_pieces_to_the_replica_at_once() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL), entry("b", ALL))
    fixture.links[0].set_usable(False)
    assert {owner for layer in range(LAYERS) for owner in fixture.owners(layer)} == {"b"}
    fixture.links[0].set_usable(True)
    assert {owner for layer in range(LAYERS) for owner in fixture.owners(layer)} == {"a", "b"}


async def test_pool_gone_from_the_map_but_healthy_keeps_serving_until_it_breaks() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", LOW), entry("b", HIGH))
    fixture.apply(entry("a", LOW))
    assert fixture.pools.missing() == {}
    fixture.links[1].set_usable(False)
    assert fixture.pools.missing() == dict.fromkeys(range(LAYERS), 3)
    assert [link.pool_id for link in fixture.pools.links] == ["a"]


async def test_pool_gone_from_the_map_yields_to_one_that_is_in_it() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL))
    fixture.apply(entry("b", ALL))
    assert {owner for layer in range(LAYERS) for owner in fixture.owners(layer)} == {"b"}


async def test_newer_incarnation_replaces_the_older_even_if_it_looks_healthy() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL, incarnation=1))
    fixture.apply(entry("a", ALL, incarnation=2))
    assert len(fixture.pools.links) == 1
    assert fixture.pools.links[0] is fixture.links[1]


async def test_draining_pool_serves_only_what_nobody_else_holds() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL, draining=True), entry("b", LOW))
    assert fixture.owners(0) == ["b"] * 3 + ["a"] * 3
    assert fixture.pools.missing() == {}


async def test_pieces_in_the_topology_decide_not_what_a_pool_once_said() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL))
    fixture.apply(entry("a", LOW))
    assert np.flatnonzero(fixture.pools.layers[0].owner_E < 0).tolist() == [3, 4, 5]


async def test_an_ejected_or_slow_pool_serves_only_what_nobody_else_holds() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL), entry("b", LOW))
    slow, other = fixture.links
    for change in ({"ejected": True}, {"ejected": False}):
        slow.health.ejected = change["ejected"]
        slow.predicted_s = 0.001 if change["ejected"] else 0.05
        fixture.pools.refresh()
        assert fixture.owners(0) == ["b"] * 3 + ["a"] * 3
    other.set_usable(False)
    assert fixture.owners(0) == ["a"] * 6, "never without its last holder"


@pytest.mark.parametrize("times_s", [(0.0039, 0.0041), (0.001, 0.0035), (0.0, 0.02)])
async def test_pools_that_are_about_as_fast_share_the_layers(times_s: tuple[float, float]) -> None:
    """Whatever their times are. (A pool that has just joined has no known time.)"""
    fixture = Fixture()
    fixture.apply(entry("a", ALL), entry("b", ALL))
    for link, predicted_s in zip(fixture.links, times_s, strict=True):
        link.predicted_s = predicted_s
    fixture.pools.refresh()
    assert {fixture.owners(layer)[0] for layer in range(LAYERS)} == {"a", "b"}


@pytest.mark.parametrize("stripe", [[0, 1], [0, 2]], ids=["halves", "every other layer"])
async def test_replicas_of_a_stripe_share_its_layers(stripe: list[int]) -> None:
    fixture = Fixture()
    rest = [layer for layer in range(LAYERS) if layer not in stripe]
    fixture.apply(
        *(entry(name, Pieces.grid(stripe, range(EXPERTS))) for name in "ab"),
        *(entry(name, Pieces.grid(rest, range(EXPERTS))) for name in "cd"),
    )
    assert sorted(fixture.owners(layer)[0] for layer in range(LAYERS)) == ["a", "b", "c", "d"]


async def test_a_slow_pool_is_slow_among_those_who_hold_the_layer() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", LOW), entry("b", HIGH), entry("c", HIGH))
    for link, predicted_s in zip(fixture.links, (0.0005, 0.015, 0.017), strict=True):
        link.predicted_s = predicted_s
    fixture.pools.refresh()
    assert {fixture.owners(layer)[5] for layer in range(LAYERS)} == {"b", "c"}


async def test_cover_finds_replicas_or_none() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL), entry("b", LOW), entry("c", HIGH))
    a, b, c = fixture.links
    assert fixture.pools.cover(0, [0, 5], {(a, 1)}) == [(b, [0]), (c, [5])]
    assert fixture.pools.cover(0, [0, 5], {(b, 1), (c, 1)}) == [(a, [0, 5])]
    assert fixture.pools.cover(0, [0, 5], {(a, 1), (b, 1)}) is None
    a.generation = 2
    assert fixture.pools.cover(0, [0, 5], {(a, 1), (b, 1)}) == [(a, [0, 5])], "it came back"


async def test_a_pool_that_lacks_a_piece_is_not_asked_for_it_until_a_topology_says_so() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL), entry("b", ALL))
    a, b = fixture.links
    fixture.pools.lacks(a, 0, 4)
    assert fixture.pools.cover(0, [4], ()) == [(b, [4])]
    fixture.apply(entry("a", ALL), entry("b", LOW))
    assert fixture.pools.cover(0, [4], ()) == [(a, [4])]


async def test_a_pool_that_refuses_new_calls_goes_behind_the_others() -> None:
    fixture = Fixture()
    fixture.apply(entry("a", ALL), entry("b", ALL))
    fixture.pools.refuses(fixture.links[0])
    assert {owner for layer in range(LAYERS) for owner in fixture.owners(layer)} == {"b"}


async def test_same_numerics_uses_only_the_kind_that_holds_most() -> None:
    fixture = Fixture()
    fixture.pools = PoolSet(LAYERS, EXPERTS, fixture._make, same_numerics=True)
    fixture.apply(entry("a", LOW), entry("b", ALL), entry("c", HIGH))
    fixture.links[1].numerics_id = "another"
    fixture.pools.refresh()
    assert {owner for layer in range(LAYERS) for owner in fixture.owners(layer)} == {"b"}
    fixture.links[1].set_usable(False)
    assert fixture.owners(0) == ["a"] * 3 + ["c"] * 3


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_topology_with_a_bad_entry_changes_nothing(at: int):
    fixture = Fixture()
    fixture.apply(entry("a", ALL), entry("b", ALL))
    before = ([fixture.owners(layer_idx) for layer_idx in range(LAYERS)], fixture.pools.version)
    bad = entry("c", ALL)
    bad.pieces.layers[-1].layer_idx = LAYERS
    entries = [entry("a", LOW, incarnation=2), entry("d", HIGH)]
    entries.insert(at, bad)
    with pytest.raises(ValueError, match="layer"):
        fixture.apply(*entries)
    assert ([fixture.owners(i) for i in range(LAYERS)], fixture.pools.version) == before
    assert [link.pool_id for link in fixture.pools.links] == ["a", "b"]
    assert [(link.pool_id, link.stopped) for link in fixture.links] == [("a", False), ("b", False)]
    fixture.links[0].set_usable(False)
    fixture.links[0].set_usable(True)
    assert "a" in {*fixture.owners(0), *fixture.owners(1)}, "it is listed as before, not gone"
