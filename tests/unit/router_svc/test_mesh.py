"""What the control plane decides, on a fake clock."""

import pytest

from protos import router_pb2
from router_svc.members.epoch import Drains
from router_svc.members.identity import Identity
from router_svc.members.member import LOADING, Member
from router_svc.mesh import Mesh
from router_svc.placement.goals import PlacementRules
from rpc.errors import Mismatch, NotReady
from rpc.mesh.pieces import Pieces
from tests.support.router_svc.mesh import (
    ATTENTION,
    EPOCH,
    EVERYTHING,
    READY,
    holds,
    mesh_of,
    register,
    status,
)


def test_a_pool_that_asked_is_answered_at_once_another_after_its_first_status():
    mesh = mesh_of()
    layer = Pieces.grid([1], range(4))
    mesh.join(register("asks", requested=layer), "", 0.0)
    free = mesh.join(register("free"), "", 0.0)
    assert holds(mesh.new_assignments(0.0)) == {"asks": layer}
    mesh.report(free, status(), 0.1)
    assert holds(mesh.new_assignments(0.1)) == {"free": EVERYTHING}
    assert mesh.new_assignments(0.2) == []


def test_pools_still_loading_count_as_holders_draining_ones_do_not():
    mesh = mesh_of()
    names = ["a", "b", "c"]
    pools = {name: mesh.join(register(name, capacity=4), "", 0.0) for name in names}
    for name in ("a", "b"):
        mesh.report(pools[name], status(state=LOADING), 0.0)
        mesh.new_assignments(0.0)
    assert pools["a"].hold | pools["b"].hold == EVERYTHING
    pools["b"].reachable = True
    mesh.report(pools["b"], status(pools["b"].hold, router_pb2.MEMBER_STATE_DRAINING), 1.0)
    mesh.report(pools["c"], status(), 1.0)
    made = {member.member_id: made for member, made in mesh.new_assignments(1.0)}
    layer = pools["b"].ready.to_message()
    assert made["c"].hold == layer
    # And the draining pool is told what still needs it.
    assert made["b"].hold == made["b"].only_here == layer


def test_pools_assigned_together_share_the_model_and_departed_ones_get_nothing():
    mesh = mesh_of(restarted=True)
    pools = [mesh.join(register(name, capacity=4), "", 0.0) for name in "abc"]
    for pool in pools:
        mesh.report(pool, status(), 0.0)
    mesh.leave(pools[1], 1.0, said_goodbye=True)
    made = holds(mesh.new_assignments(11.0))
    assert set(made) == {"a", "c"}
    assert made["a"] | made["c"] == EVERYTHING


def test_assignment_versions_rise_over_restarts_too():
    versions = []
    for epoch in (EPOCH, EPOCH + 1):
        mesh = Mesh(
            epoch=epoch,
            restarted=False,
            lease_s=5.0,
            adopt_s=0.0,
            max_members=5,
            checkpoint_id="",
            now_s=0.0,
        )
        for name in ("a", "b"):
            mesh.join(register(name, requested=EVERYTHING), "", 0.0)
        versions += [assignment.version for _, assignment in mesh.new_assignments(0.0)]
    assert versions == sorted(set(versions))


def test_after_a_restart_free_pools_wait_for_the_adoption_to_end():
    mesh = mesh_of(restarted=True)
    pool = mesh.join(register(), "", 0.0)
    mesh.report(pool, status(), 0.0)
    assert mesh.new_assignments(9.9) == []
    assert holds(mesh.new_assignments(10.1)) == {"a": EVERYTHING}


@pytest.mark.parametrize(
    "acked, proves", [(0, False), ((EPOCH - 1 << 20) + 5, True), ((EPOCH << 20) + 1, False)]
)
def test_an_assignment_of_an_earlier_epoch_proves_a_restart(acked, proves):
    mesh = mesh_of()
    pool = mesh.join(register(), "", 0.0)
    mesh.report(pool, status(acked_assignment=acked), 0.0)
    assert mesh.adopting(1.0) == proves


@pytest.mark.parametrize("acked, proves", [(0, False), (EPOCH - 1, True), (EPOCH, False)])
def test_a_watcher_with_an_earlier_topology_proves_a_restart(acked, proves):
    mesh = mesh_of()
    assert mesh.watcher_seen(acked) == proves
    assert mesh.adopting(1.0) == proves


def test_silent_members_are_swept_but_not_for_the_routers_own_standstill():
    mesh = mesh_of()
    mesh.join(register("a"), "", 0.0)
    talks = mesh.join(register("b"), "", 0.0)
    for now_s in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert mesh.sweep(now_s) == []
        mesh.report(talks, status(), now_s)
    assert [member.member_id for member in mesh.sweep(6.0)] == ["a"]
    assert mesh.sweep(1000.0) == []  # the router itself was suspended: no member is removed
    assert [member.member_id for member in mesh.members] == ["b"]
    for now_s in (1002.0, 1004.0):
        assert mesh.sweep(now_s) == []
    assert [member.member_id for member in mesh.sweep(1006.0)] == ["b"]


def test_a_malformed_status_changes_nothing():
    mesh = mesh_of()
    pool = mesh.join(register(), "", 0.0)
    mesh.report(pool, status(Pieces([(0, 0)])), 0.0)
    activations = [router_pb2.LayerActivations(layer_idx=9, expert_ids=[0], token_counts=[1])]
    with pytest.raises(ValueError, match="layer 9"):
        mesh.report(pool, status(EVERYTHING, activations=activations), 3.0)
    assert pool.ready == Pieces([(0, 0)])
    assert pool.last_seen_s == 0.0


def test_only_what_the_map_shows_counts_as_a_change():
    mesh = mesh_of()
    pool = mesh.join(register(), "", 0.0)
    pool.reachable = True
    assert mesh.report(pool, status(EVERYTHING), 0.0).changed
    assert not mesh.report(pool, status(EVERYTHING, queued=7), 1.0).changed
    assert mesh.report(pool, status(Pieces([(0, 0)])), 2.0).changed
    assert mesh.report(
        pool, status(Pieces([(0, 0)]), router_pb2.MEMBER_STATE_DRAINING), 3.0
    ).changed


def test_activations_of_all_attention_services_add_up():
    mesh = mesh_of()
    counts = [router_pb2.LayerActivations(layer_idx=1, expert_ids=[0, 3], token_counts=[5, 2])]
    for name in ("x", "y"):
        attention = mesh.join(register(name, ATTENTION), "", 0.0)
        reported = mesh.report(attention, status(activations=counts), 0.0)
        assert reported.added_tokens == {1: 7}
        assert not attention.status.activations
    page = mesh.activations.page()
    assert page["tokens"] == [[0, 0, 0, 0], [10, 0, 0, 4]]


async def test_rebalancing_follows_the_counts_and_comes_to_rest():
    rules = PlacementRules(plan_delay_s=0.0, replicas=1, striping="expert")
    mesh = mesh_of(rules=rules)
    for name in ("a", "b"):
        pool = mesh.join(register(name), "", 0.0)
        pool.reachable = True
        mesh.report(pool, status(), 0.0)
    for pool, _ in mesh.new_assignments(0.0):
        mesh.report(pool, status(pool.hold), 0.0)
    assert (await mesh.rebalance(1.0)).loaded == 0
    hot = [router_pb2.LayerActivations(layer_idx=0, expert_ids=[0, 1], token_counts=[10**6, 10**6])]
    mesh.report(mesh.join(register("x", ATTENTION), "", 1.0), status(activations=hot), 1.0)
    before = [pool.goal for pool in mesh.members.of_role("pool")]
    would = await mesh.rebalance(2.0, dry_run=True)
    assert [pool.goal for pool in mesh.members.of_role("pool")] == before
    done = await mesh.rebalance(2.0)
    assert done == would
    assert done.loaded == len(done.moves) == 2  # each holds both: they were on one pool
    assert done.before > 1.9 > done.after
    goals = [pool.goal for pool in mesh.members.of_role("pool")]
    assert all(goal.experts(0)[:2] == (0, 1) for goal in goals)
    assert (await mesh.rebalance(3.0)).loaded == 0
    restarted = mesh_of(restarted=True)
    with pytest.raises(NotReady, match="restarted"):
        await restarted.rebalance(1.0)


def test_a_drain_outlives_the_router_and_the_stream_but_not_the_pool(tmp_path):
    state = tmp_path / "epoch"
    mesh = mesh_of(drains=Drains(state))
    pools = [mesh.join(register(name), "", 0.0) for name in ("a", "b", "c")]
    for pool in pools:
        mesh.drain(pool, 1.0)
    mesh.drain(pools[2], 2.0, undo=True)
    again = mesh_of(restarted=True, drains=Drains(state))
    assert [again.join(register(name), "", 0.0).drained for name in ("a", "b", "c")] == [
        True,
        True,
        False,
    ]
    lost = again.join(register("a"), "", 1.0)
    again.leave(lost, 1.0, said_goodbye=False)
    drained = again.join(register("a"), "", 2.0)
    assert drained.drained
    again.leave(drained, 2.0, said_goodbye=False)
    newer = again.join(register("a", incarnation=2), "", 3.0)
    assert not newer.drained
    assert Drains(state).holds("a", 1)  # unproven until it answers the dial-back
    again.dialled(newer, "")
    again.report(newer, status(EVERYTHING), 3.0)
    assert Drains(state).holds("b", 1)
    assert not Drains(state).holds("a", 1)
    (tmp_path / "epoch.drained").write_text("nonsense")
    with pytest.raises(ValueError, match="drained pools"):
        Drains(state)


def test_an_empty_mesh_forgets_its_model_unless_pools_are_missed():
    mesh = mesh_of()
    pool = mesh.join(register(), "", 0.0)
    pool.reachable = True
    mesh.report(pool, status(EVERYTHING), 0.0)
    mesh.publish(0.0)
    mesh.leave(pool, 1.0, said_goodbye=False)
    assert mesh.publish(1.0) is None  # one of one vanished: the map is kept
    assert mesh.members.model is not None

    pool = mesh.join(register(), "", 2.0)
    mesh.report(pool, status(EVERYTHING), 2.0)
    mesh.leave(pool, 3.0, said_goodbye=True)
    assert not mesh.publish(3.0).pools
    assert mesh.members.model is None


def test_the_stream_that_was_replaced_does_not_take_its_successor_along():
    mesh = mesh_of()
    older = mesh.join(register(), "", 0.0)
    newer = mesh.join(register(), "", 1.0)
    assert mesh.members.is_present(newer)
    assert not mesh.leave(older, 2.0, said_goodbye=True)
    assert mesh.members.is_present(newer)


def pieces_of(message) -> Pieces:
    return Pieces.from_message(message, num_layers=2, num_experts=4)


HAS_SECRET = Identity(has_secret=True)
SECOND = {"incarnation": 2, "process_key": b"another process"}


def live_pool(mesh: Mesh, *, holds: Pieces = EVERYTHING) -> Member:
    pool = mesh.join(register(), "", 0.0)
    mesh.dialled(pool, "")
    mesh.report(pool, status(holds), 0.0)
    mesh.new_assignments(0.0)
    mesh.publish(0.0)
    return pool


def shown(mesh: Mesh) -> list[tuple[int, int]]:
    """(incarnation, pieces) of each pool on the map."""
    mesh.new_assignments(1.0)
    mesh.publish(1.0)
    assert mesh.book.latest is not None
    return [(entry.incarnation, len(pieces_of(entry.pieces))) for entry in mesh.book.latest.pools]


def test_a_successor_changes_nothing_until_it_can_be_reached_and_holds_what_the_older_holds():
    mesh = mesh_of()
    older = live_pool(mesh)
    before = shown(mesh)
    newer = mesh.join(register(**SECOND), "", 1.0, HAS_SECRET)
    assert pieces_of(mesh.trial(newer).hold) == EVERYTHING
    assert mesh.take_over(newer, 1.0) is None
    activations = [router_pb2.LayerActivations(layer_idx=0, expert_ids=[0], token_counts=[9])]
    for state, ready, reason in (
        (READY, EVERYTHING, "cannot be reached"),
        (LOADING, EVERYTHING, ""),
        (READY, Pieces(), ""),
        (READY, EVERYTHING - Pieces([(0, 1)]), ""),
    ):
        mesh.dialled(newer, reason)
        told = mesh.report(newer, status(ready, state=state, activations=activations), 1.0)
        assert not told.changed
        assert not told.added_tokens
        assert mesh.take_over(newer, 1.0) is None
        assert mesh.members.is_present(older)
        assert shown(mesh) == before
    mesh.report(newer, status(EVERYTHING), 1.0)
    assert mesh.take_over(newer, 1.0) is older
    assert mesh.members.is_present(newer)
    assert shown(mesh) == [(2, len(EVERYTHING))]
    assert mesh.take_over(newer, 1.0) is None
    with pytest.raises(Mismatch, match="fenced"):
        mesh.join(register(), "", 2.0, HAS_SECRET)


def test_a_successor_of_a_pool_that_holds_nothing_has_nothing_to_show_but_that_it_is_ready():
    mesh = mesh_of()
    live_pool(mesh, holds=Pieces()).goal = Pieces()
    newer = mesh.join(register(**SECOND), "", 1.0, HAS_SECRET)
    assert not pieces_of(mesh.trial(newer).hold)
    mesh.dialled(newer, "")
    mesh.report(newer, status(), 1.0)
    assert mesh.take_over(newer, 1.0) is not None


def test_a_successor_waits_no_longer_when_its_place_is_free():
    mesh = mesh_of()
    older = live_pool(mesh)
    newer = mesh.join(register(**SECOND), "", 1.0, HAS_SECRET)
    mesh.dialled(newer, "")
    assert mesh.leave(older, 1.0, said_goodbye=True)
    mesh.report(newer, status(EVERYTHING), 1.0)
    assert mesh.take_over(newer, 1.0) is None  # its stream ends, and it joins as any other
    assert mesh.members.is_present(mesh.join(register(**SECOND), "", 1.0))


def test_a_silent_successor_is_forgotten_alone():
    mesh = mesh_of()
    older = live_pool(mesh)
    newer = mesh.join(register(**SECOND), "", 1.0, HAS_SECRET)
    for now_s in (2.0, 4.0, 6.0, 8.0):
        mesh.report(older, status(EVERYTHING), now_s)
        silent = mesh.sweep(now_s)
        assert silent == ([newer] if now_s > 6 else [])
    assert mesh.members.is_present(older)
    assert not mesh.members.is_successor(newer)
