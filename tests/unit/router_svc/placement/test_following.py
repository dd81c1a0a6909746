"""Placement follows the load: hot experts gain holders, cold ones lose them, noise does nothing."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import router_pb2
from router_svc.mesh import Mesh
from router_svc.placement.following import FollowingRules
from router_svc.placement.goals import PlacementRules
from rpc.mesh.pieces import Pieces
from tests.support.examples import examples

LAYERS, EXPERTS = 2, 12
SIZES = {"num_layers": LAYERS, "num_experts": EXPERTS}
TICK_S = 5.0
READY = router_pb2.MEMBER_STATE_READY


class World:
    """A mesh on a fake clock. Pools do what they are told within a tick; the attention
    service routes at random, by given chances, and ACKs every topology."""

    def __init__(self, *, capacity=0, pools=4, striping="expert", seed=0, restarted=None, **rules):
        following = FollowingRules(half_life_s=60.0, **rules)
        placement = PlacementRules(
            replicas=1, striping=striping, plan_delay_s=0.0, settle_s=1.0, following=following
        )
        self.now_s = restarted.now_s if restarted else 0.0
        self.mesh = Mesh(
            epoch=2 if restarted else 1,
            restarted=bool(restarted),
            lease_s=60.0,
            adopt_s=5.0,
            max_members=50,
            checkpoint_id="",
            now_s=self.now_s,
            rules=placement,
        )
        self.random = random.Random(seed)
        self.capacity = capacity
        self.held = restarted.held if restarted else {}
        self.loads: list[tuple[float, int]] = []  # (when, pieces)
        for name in [f"pool-{number}" for number in range(pools)]:
            self.join(name)
        self.attention = self.mesh.join(self.register("x", router_pb2.MEMBER_ROLE_ATTENTION), "", 0)

    def register(self, name, role=router_pb2.MEMBER_ROLE_POOL):
        everything = Pieces.all_of(LAYERS, EXPERTS).to_message()
        offer = router_pb2.PoolOffer(available=everything, capacity_pieces=self.capacity)
        return router_pb2.Register(
            role=role,
            member_id=name,
            incarnation=1,
            address="10.0.0.1:1",
            checkpoint_id="one",
            protocol_major=1,
            offer=offer if role == router_pb2.MEMBER_ROLE_POOL else None,
            **SIZES,
        )

    def join(self, name):
        pool = self.mesh.join(self.register(name), "", self.now_s)
        pool.reachable = True
        self.held.setdefault(name, Pieces())

    def run(self, seconds, chances, *, steps_per_s=40, rows=4):
        """`chances` [layer][expert] of being chosen by a row."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += TICK_S
            steps = int(TICK_S * steps_per_s)
            self.mesh.report(self.attention, self.routed(chances, steps, rows), self.now_s)
            for pool in self.mesh.members.of_role("pool"):
                ready = self.held[pool.member_id].to_message()
                acked = 2**50 if pool.hold == self.held[pool.member_id] else 0
                status = router_pb2.MemberStatus(state=READY, ready=ready, acked_assignment=acked)
                self.mesh.report(pool, status, self.now_s)
            latest = self.mesh.book.latest
            acked = latest.version.counter if latest else 0
            for member, assignment in self.mesh.new_assignments(self.now_s, acked):
                hold = Pieces.from_message(assignment.hold, **SIZES)
                assert not self.capacity or len(hold) <= self.capacity
                self.loads.append((self.now_s, len(hold - self.held[member.member_id])))
                self.held[member.member_id] = hold
            self.mesh.publish(self.now_s)

    def routed(self, chances, steps, rows):
        status = router_pb2.MemberStatus(state=READY)
        for layer, row in enumerate(chances):
            active = [1 - (1 - chance) ** rows for chance in row]
            entry = status.activations.add(layer_idx=layer, expert_ids=range(len(row)))
            entry.step_counts.extend(self.drawn(steps, chance) for chance in active)
            entry.token_counts.extend(self.drawn(steps * rows, chance) for chance in row)
        return status

    def drawn(self, tries, chance):
        """About binomial."""
        spread = (tries * chance * (1 - chance)) ** 0.5
        return min(tries, max(0, round(self.random.gauss(tries * chance, spread))))

    def holders(self, layer, expert):
        return sum((layer, expert) in held for held in self.held.values())

    def loaded_since(self, at_s):
        return sum(pieces for when_s, pieces in self.loads if when_s > at_s)


EVEN = [[1 / EXPERTS] * EXPERTS] * LAYERS
SKEWED = [[0.8, 0.5] + [0.01] * (EXPERTS - 2), [1 / EXPERTS] * EXPERTS]


def test_hot_experts_get_holders_by_themselves_and_lose_them_when_they_cool():
    world = World(pieces_per_minute=60)
    world.run(120, EVEN)
    assert {world.holders(0, expert) for expert in range(EXPERTS)} == {1}
    assert world.mesh.following.last.verdict == "balanced"
    world.run(300, SKEWED)
    assert world.holders(0, 0) > 1
    assert world.holders(0, 1) > 1
    assert {world.holders(1, expert) for expert in range(EXPERTS)} == {1}
    world.run(900, EVEN)
    assert {world.holders(0, expert) for expert in range(EXPERTS)} == {1}


def test_nothing_moves_when_it_is_off_idle_or_not_yet_for_long():
    for world in (World(on=False), World(imbalance_s=1e6)):
        world.run(20, EVEN)
        before = dict(world.held)
        world.run(300, SKEWED)
        assert world.held == before
    hot = World()
    hot.run(420, SKEWED)
    held = dict(hot.held)
    assert hot.holders(0, 0) > 1
    hot.run(3600, EVEN, steps_per_s=0)  # no requests: no reason to forget
    assert hot.mesh.following.last.verdict == "no_record"
    assert hot.held == held


def test_no_memory_no_further_holders():
    world = World(capacity=LAYERS * EXPERTS // 4)
    world.run(600, SKEWED)
    assert sum(len(held) for held in world.held.values()) == LAYERS * EXPERTS


@examples(4, few=2)
@given(st.integers(1, 6), st.integers(0, 9), st.sampled_from([0, 8, 11]))
def test_movement_is_bounded(per_minute, seed, capacity):
    world = World(pieces_per_minute=per_minute, seed=seed, capacity=capacity)
    world.run(60, EVEN)
    start_s = world.now_s
    world.run(400, SKEWED)
    world.run(400, [SKEWED[1], SKEWED[0]])
    moves = [(when_s, pieces) for when_s, pieces in world.loads if when_s > start_s and pieces]
    assert moves
    for since_s, _ in moves:
        within = sum(pieces for when_s, pieces in moves if since_s <= when_s < since_s + 60)
        assert within <= 2 * per_minute  # a full bucket, and what fills it meanwhile


chances = st.lists(
    st.lists(st.sampled_from([0.01, 0.05, 0.2, 0.6]), min_size=EXPERTS, max_size=EXPERTS),
    min_size=LAYERS,
    max_size=LAYERS,
)


@examples(6, few=3)
@given(chances, st.integers(0, 99), st.sampled_from([0, 9]), st.sampled_from(["expert", "layer"]))
def test_a_steady_noisy_load_comes_to_rest(chances, seed, capacity, striping):
    if striping == "layer":
        capacity = 0
    world = World(pieces_per_minute=60, seed=seed, capacity=capacity, striping=striping)
    world.run(900, chances)
    settled_s, held = world.now_s, dict(world.held)
    world.run(1800, chances)
    assert world.loaded_since(settled_s) == 0
    assert world.held == held


@pytest.mark.parametrize("follow", [True, False])
def test_a_new_router_keeps_further_holders_only_if_it_follows_the_load(follow):
    world = World(pieces_per_minute=60)
    world.run(420, SKEWED)
    extra = world.holders(0, 0)
    assert extra > 1
    again = World(restarted=world, on=follow)
    again.run(60, EVEN, steps_per_s=1)
    assert again.holders(0, 0) == (extra if follow else 1)


def test_planning_for_another_reason_moves_nothing_by_noise():
    world = World(pieces_per_minute=60)
    world.run(420, SKEWED)
    settled_s = world.now_s
    for _ in range(20):
        world.mesh.goals.reconsider(world.now_s)
        world.run(20, SKEWED)
    assert world.loaded_since(settled_s) == 0


def test_pools_that_join_make_no_copies_beyond_what_following_the_load_allows():
    world = World(pools=1, pieces_per_minute=3)
    world.run(300, SKEWED)
    for name in ("pool-1", "pool-2", "pool-3"):
        world.join(name)
    world.run(20, SKEWED)
    # Spread over all four, but what is hot has one holder still: nothing was beyond a bound yet.
    assert all(world.held.values())
    assert all(world.holders(layer, e) == 1 for layer in range(LAYERS) for e in range(EXPERTS))
    spread_s = world.now_s
    world.run(300, SKEWED)
    assert world.holders(0, 0) > 1
    moves = [(when_s, pieces) for when_s, pieces in world.loads if when_s > spread_s and pieces]
    for since_s, _ in moves:
        assert sum(pieces for when_s, pieces in moves if since_s <= when_s < since_s + 60) <= 6
