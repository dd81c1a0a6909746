"""Pools join, leave, drain, die and move: what the map shows is held, what is held is kept until
nothing calls it, and everything settles where it should."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protos import router_pb2
from router_svc.mesh import Mesh
from router_svc.placement.goals import PlacementRules
from rpc.mesh.pieces import Pieces
from tests.support.examples import examples

LAYERS, EXPERTS = 3, 2
SIZES = {"num_layers": LAYERS, "num_experts": EXPERTS}
EVERYTHING = Pieces.all_of(LAYERS, EXPERTS)
SETTLE_S = 1.0
LOADING, READY = router_pb2.MEMBER_STATE_LOADING, router_pb2.MEMBER_STATE_READY
DRAINING = router_pb2.MEMBER_STATE_DRAINING
NAMES = "abcde"


class Pool:
    """A pool process: does what it was last told, some time later."""

    def __init__(self, member, capacity):
        self.member = member
        self.capacity = capacity
        self.held = Pieces()
        self.told = None  # (pieces, version)
        self.acked = 0
        self.state = LOADING
        self.released = False

    def status(self):
        ready = self.held if self.state != LOADING else Pieces()
        return router_pb2.MemberStatus(
            ready=ready.to_message(), state=self.state, acked_assignment=self.acked
        )

    def work(self):
        if self.told is None:
            return
        pieces, self.acked = self.told
        self.told = None
        if self.state == DRAINING:
            self.released = not pieces
            return
        self.held = pieces
        assert not self.capacity or len(self.held) <= self.capacity
        self.state = READY


class World(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.now_s = 0.0
        self.mesh = None
        self.pools: dict[str, Pool] = {}
        self.incarnation = 0
        self.calls: list[tuple[float, dict[str, Pieces]]] = []

    @precondition(lambda self: self.mesh is None)
    @rule(replicas=st.integers(0, 2), striping=st.sampled_from(["layer", "expert"]))
    def found(self, replicas, striping):
        rules = PlacementRules(
            replicas=replicas, striping=striping, plan_delay_s=0.1, settle_s=SETTLE_S, max_moves=1
        )
        self.mesh = Mesh(
            epoch=5,
            restarted=False,
            lease_s=5.0,
            adopt_s=0.0,
            max_members=50,
            checkpoint_id="",
            now_s=0.0,
            rules=rules,
        )
        self.acked = 0
        self.join("a", 0)

    @precondition(lambda self: self.mesh is not None)
    @rule(name=st.sampled_from(NAMES), capacity=st.sampled_from([0, 0, 2, 3, 6]))
    def join(self, name, capacity):
        if name in self.pools:
            return
        self.incarnation += 1
        register = router_pb2.Register(
            role=router_pb2.MEMBER_ROLE_POOL,
            member_id=name,
            incarnation=self.incarnation,
            address="10.0.0.1:1",
            checkpoint_id="one",
            protocol_major=1,
            offer=router_pb2.PoolOffer(available=EVERYTHING.to_message(), capacity_pieces=capacity),
            **SIZES,
        )
        member = self.mesh.join(register, "", self.now_s)
        member.reachable = True
        self.pools[name] = Pool(member, capacity)
        self.report(name)

    @precondition(lambda self: self.pools)
    @rule(index=st.integers(0, 9))
    def work(self, index):
        name = sorted(self.pools)[index % len(self.pools)]
        self.pools[name].work()
        self.report(name)

    @precondition(lambda self: self.pools)
    @rule(index=st.integers(0, 9))
    def drain(self, index):
        name = sorted(self.pools)[index % len(self.pools)]
        if self.pools[name].state == READY:
            self.pools[name].state = DRAINING
            self.report(name)

    @precondition(lambda self: self.pools)
    @rule(index=st.integers(0, 9))
    def die(self, index):
        name = sorted(self.pools)[index % len(self.pools)]
        self.mesh.leave(self.pools.pop(name).member, self.now_s, said_goodbye=False)
        self.tick(0.1)

    @precondition(lambda self: self.mesh is not None)
    @rule(seconds=st.sampled_from([0.1, 0.6, 1.1, 6.0]))
    def tick(self, seconds):
        self.now_s += seconds
        for name in self.pools:
            self.report(name)
        self.exchange()

    @precondition(lambda self: self.mesh is not None)
    @rule()
    def ack(self):
        """The attention service takes the newest topology; older calls go on for a while."""
        latest = self.mesh.book.latest
        if latest is not None:
            self.acked = latest.version.counter
            shown = dict(self.mesh.book.shown)
            self.calls.append((self.now_s, shown))
        self.exchange()

    def report(self, name):
        pool = self.pools[name]
        self.mesh.report(pool.member, pool.status(), self.now_s)
        self.exchange()

    def exchange(self):
        for member, assignment in self.mesh.new_assignments(self.now_s, self.acked):
            hold = Pieces.from_message(assignment.hold, **SIZES)
            pool = self.pools[member.member_id]
            self.check_nothing_called_is_dropped(pool, pool.held - hold)
            pool.told = (hold, assignment.version)
        self.mesh.publish(self.now_s)
        for name, pool in list(self.pools.items()):
            if pool.released:
                del self.pools[name]
                self.mesh.leave(pool.member, self.now_s, said_goodbye=True)

    def check_nothing_called_is_dropped(self, pool, dropped):
        """Callers by the topology they last ACKed, or did within `SETTLE_S`, find its pieces."""
        newest = self.calls[-1:]
        since_s = self.now_s - SETTLE_S + 1e-6  # clock readings are sums of floats
        recent = [shown for at_s, shown in self.calls[:-1] if at_s > since_s]
        replaced_just_now = self.calls[-2:-1] if newest and newest[0][0] > since_s else []
        for shown in [*recent, *(s for _, s in newest), *(s for _, s in replaced_just_now)]:
            assert not dropped & shown.get(pool.member.member_id, Pieces())

    @invariant()
    def what_is_shown_is_held(self):
        if self.mesh is None:
            return
        for pool_id, shown in self.mesh.book.shown.items():
            if pool_id in self.pools:
                assert shown <= self.pools[pool_id].held

    @invariant()
    def what_somebody_serves_is_shown_somewhere(self):
        if self.mesh is None:
            return
        shown = Pieces.union(self.mesh.book.shown.values())
        for pool in self.pools.values():
            keeping = pool.told[0] if pool.told else pool.held
            if pool.state in (READY, DRAINING) and pool.member.ready == pool.held:
                assert pool.held & keeping <= shown

    def teardown(self):
        """Left alone, it settles: every pool holds its goal, nothing that was held is missing."""
        if self.mesh is None:
            return
        for _ in range(60):
            self.now_s += 1.0
            for pool in list(self.pools.values()):
                if pool.member.member_id in self.pools:
                    pool.work()
                    self.report(pool.member.member_id)
            self.ack()
        if self.mesh.book.kept_pools:
            return
        rest = [pool for pool in self.pools.values() if pool.state == READY]
        for pool in rest:
            assert pool.held == pool.member.goal
            assert self.mesh.book.shown[pool.member.member_id] == pool.held
        if self.mesh.goals.latest is not None and rest:
            dark = self.mesh.goals.latest.dark
            draining = [pool for pool in self.pools.values() if pool.state == DRAINING]
            for pool in draining:
                assert pool.held & dark  # only pools that hold what no other can take are left


World.TestCase.settings = examples(20, stateful_step_count=25)
TestChanges = World.TestCase
