"""What the map shows, and which losses it accepts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import router_pb2
from router_svc.members.member import DRAINING, LOADING, READY, Member, Model, Offer
from router_svc.topology_book import TopologyBook
from rpc.config import Address
from rpc.mesh.pieces import Pieces
from rpc.mesh.topology import version_of

MODEL = Model("one", 4, 8)
WINDOW_S = 5.0


def pool(name: str, ready: Pieces, state=READY, *, reachable=True, incarnation=1) -> Member:
    return Member(
        role="pool",
        member_id=name,
        incarnation=incarnation,
        address=Address(host="10.0.0.1", port=50052),
        metrics_address=None,
        numerics_id="",
        model=MODEL,
        offer=Offer(available=ready, requested=Pieces(), capacity_pieces=0),
        last_seen_s=0.0,
        status=router_pb2.MemberStatus(state=state),
        ready=ready,
        ready_message=ready.to_message(),
        reachable=reachable,
    )


def layer(index: int) -> Pieces:
    return Pieces.grid([index], range(8))


def shown(topology: router_pb2.Topology) -> dict[str, Pieces]:
    return {
        entry.pool_id: Pieces.from_message(entry.pieces, num_layers=4, num_experts=8)
        for entry in topology.pools
    }


class Mesh:
    """A book with pools that come and go."""

    def __init__(self, *pools: Member):
        self.book = TopologyBook(epoch=7, window_s=WINDOW_S)
        self.pools = {member.member_id: member for member in pools}
        self.publish(0.0)

    def publish(self, now_s: float, **options) -> router_pb2.Topology:
        pools = [self.pools[name] for name in sorted(self.pools)]
        self.book.publish(MODEL, pools, [], now_s=now_s, **options)
        assert self.book.latest is not None
        return self.book.latest

    def vanish(self, *names: str, now_s: float) -> None:
        for name in names:
            del self.pools[name]
            self.book.pool_vanished(name, now_s)


def test_only_ready_reachable_pools_show_their_pieces():
    mesh = Mesh(
        pool("a", layer(0)),
        pool("b", layer(1), LOADING),
        pool("c", layer(2), reachable=False),
    )
    topology = mesh.publish(0.0)
    assert shown(topology) == {"a": layer(0), "b": Pieces(), "c": Pieces()}
    assert [entry.state for entry in topology.pools] == [READY, LOADING, LOADING]
    assert topology.uncovered_pieces == 24
    assert [(c.layer_idx, c.count) for c in topology.first_uncovered] == [(1, 8), (2, 8), (3, 8)]


def test_a_draining_pool_shows_only_what_nobody_else_holds_and_covers_nothing():
    mesh = Mesh(pool("a", layer(0)), pool("b", layer(0) | layer(1), DRAINING))
    topology = mesh.publish(0.0)
    assert shown(topology) == {"a": layer(0), "b": layer(1)}
    assert topology.uncovered_pieces == 24


def test_at_most_16_layers_are_named_as_uncovered():
    book = TopologyBook(epoch=1, window_s=1.0)
    topology = book.publish(Model("one", 62, 256), [], [], now_s=0.0)
    assert topology.uncovered_pieces == 15_872
    assert len(topology.first_uncovered) == 16


def test_versions_rise_with_content_only():
    mesh = Mesh(pool("a", layer(0)))
    first = mesh.publish(0.0)
    assert version_of(first) == (7, 1)
    assert mesh.publish(9.0) is first
    mesh.pools["b"] = pool("b", layer(1))
    assert version_of(mesh.publish(9.0)) == (7, 2)
    assert version_of(first) == (7, 1)  # a published snapshot never changes


def test_a_mesh_without_a_model_has_a_map_too():
    topology = TopologyBook(epoch=1, window_s=1.0).publish(None, [], [], now_s=0.0)
    assert (topology.checkpoint_id, topology.uncovered_pieces) == ("", 0)


def test_up_to_half_of_the_pools_are_believed_to_be_gone_at_once():
    mesh = Mesh(*(pool(name, layer(i)) for i, name in enumerate("abcd")))
    mesh.vanish("a", "b", now_s=1.0)
    assert set(shown(mesh.publish(1.0))) == {"c", "d"}


def test_more_than_half_at_once_keeps_all_of_them_until_enough_are_back():
    mesh = Mesh(*(pool(name, layer(i)) for i, name in enumerate("abcd")))
    mesh.vanish("a", "b", now_s=1.0)
    mesh.publish(1.0)
    mesh.vanish("c", now_s=2.0)
    topology = mesh.publish(2.0)
    assert set(shown(topology)) == set("abcd")
    assert topology.uncovered_pieces == 0
    assert mesh.book.kept_pools == ("a", "b", "c")
    assert set(shown(mesh.publish(1000.0))) == set("abcd")  # however long it takes
    mesh.pools["a"] = pool("a", layer(0))
    topology = mesh.publish(1001.0)
    assert set(shown(topology)) == {"a", "d"}  # two live, two lost: accepted now
    assert mesh.book.kept_pools == ()


def test_losses_far_apart_are_not_at_once():
    mesh = Mesh(*(pool(name, layer(i)) for i, name in enumerate("abc")))
    mesh.vanish("a", now_s=1.0)
    mesh.publish(1.0)
    mesh.publish(2.0 + WINDOW_S)
    mesh.vanish("b", now_s=2.0 + WINDOW_S)
    assert set(shown(mesh.publish(2.0 + WINDOW_S))) == {"c"}


def test_a_goodbye_is_always_believed():
    mesh = Mesh(pool("a", layer(0)), pool("b", layer(1)))
    for name in ("a", "b"):
        del mesh.pools[name]
        mesh.book.pool_left(name)
    assert shown(mesh.publish(1.0)) == {}


def test_a_pool_that_never_showed_a_piece_is_not_missed():
    mesh = Mesh(pool("a", layer(0), LOADING))
    mesh.vanish("a", now_s=1.0)
    assert shown(mesh.publish(1.0)) == {}


def test_a_kept_pool_that_rejoins_is_shown_as_it_was_until_it_is_ready_again():
    mesh = Mesh(pool("a", layer(0)), pool("b", layer(1)))
    mesh.vanish("a", "b", now_s=1.0)
    assert set(shown(mesh.publish(1.0))) == {"a", "b"}
    mesh.pools["a"] = pool("a", Pieces(), LOADING)
    assert shown(mesh.publish(1.1))["a"] == layer(0)
    mesh.pools["a"] = pool("a", layer(0) | layer(2))
    assert shown(mesh.publish(1.2)) == {"a": layer(0) | layer(2)}


def test_a_kept_pool_that_was_restarted_is_shown_as_it_is():
    mesh = Mesh(pool("a", layer(0)))
    mesh.vanish("a", now_s=1.0)
    mesh.publish(1.0)
    mesh.pools["a"] = pool("a", Pieces(), LOADING, incarnation=2)
    assert shown(mesh.publish(1.1)) == {"a": Pieces()}


def test_nothing_is_removed_while_adopting():
    mesh = Mesh(*(pool(name, layer(i)) for i, name in enumerate("abcd")))
    mesh.vanish("a", now_s=1.0)
    assert set(shown(mesh.publish(1.0, removing=False))) == set("abcd")
    assert set(shown(mesh.publish(2.0))) == set("bcd")


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_forgetting_an_empty_mesh_clears_what_was_lost(names):
    mesh = Mesh(*(pool(name, layer(i)) for i, name in enumerate(names)))
    mesh.vanish(*names, now_s=1.0)
    mesh.book.forget_lost()
    assert shown(mesh.publish(1.0)) == {}


losses = st.lists(
    st.tuples(
        st.sampled_from("abcde"), st.sampled_from(["vanish", "leave", "join"]), st.floats(0, 3)
    ),
    max_size=25,
)


@given(losses)
def test_whatever_happens_live_pools_are_shown_and_versions_rise(events):
    mesh = Mesh()
    now_s, last = 0.0, (0, 0)
    for name, event, passed_s in events:
        now_s += passed_s
        if event == "join":
            mesh.pools[name] = pool(name, layer("abcd".find(name) % 4))
        elif name in mesh.pools and event == "vanish":
            mesh.vanish(name, now_s=now_s)
        elif name in mesh.pools:
            del mesh.pools[name]
            mesh.book.pool_left(name)
        topology = mesh.publish(now_s)
        assert mesh.pools.keys() <= shown(topology).keys()
        assert shown(topology).keys() - mesh.pools.keys() == set(mesh.book.kept_pools)
        lost, live = len(mesh.book.kept_pools), len(mesh.pools)
        assert lost == 0 or lost > live
        assert [e.pool_id for e in topology.pools] == sorted(e.pool_id for e in topology.pools)
        assert version_of(topology) >= last
        last = version_of(topology)
