"""Who is a member: agreement, fencing, leases, limits."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protos import router_pb2
from router_svc.members import members as membership
from router_svc.members.identity import STRANGER, Identity
from router_svc.members.member import Model
from router_svc.members.members import MAX_AHEAD_S, Members
from rpc.errors import Forbidden, Mismatch, NotReady, Overloaded
from rpc.mesh.pieces import Pieces
from tests.support.examples import examples

POOL, ATTENTION = router_pb2.MEMBER_ROLE_POOL, router_pb2.MEMBER_ROLE_ATTENTION
LEASE_S = 5.0
NOW_MS = 1_800_000_000_000
NAMED_A = Identity(member_ids=frozenset({"a"}))
HAS_SECRET = Identity(has_secret=True)


def register(member_id="a", incarnation=1, checkpoint_id="one", role=POOL, **fields):
    fields = {
        "num_layers": 2,
        "num_experts": 4,
        "protocol_major": 1,
        "process_key": b"%d" % incarnation,
        **fields,
    }
    return router_pb2.Register(
        role=role,
        member_id=member_id,
        incarnation=incarnation,
        checkpoint_id=checkpoint_id,
        address="10.0.0.1:50052",
        **fields,
    )


def members(**options) -> Members:
    return Members(**{"lease_s": LEASE_S, "max_members": 10, **options})


def test_the_first_member_sets_the_model_and_others_must_agree():
    mesh = members()
    mesh.join(register("a"), "", 0.0)
    assert mesh.model == Model("one", 2, 4)
    with pytest.raises(Mismatch, match="two of b is not the mesh's one"):
        mesh.join(register("b", checkpoint_id="two"), "", 0.0)
    with pytest.raises(Mismatch, match="3 layers of 4 experts, the mesh has 2 of 4"):
        mesh.join(register("b", num_layers=3), "", 0.0)
    assert [member.member_id for member in mesh] == ["a"]


def test_a_refused_member_changes_nothing_not_even_the_fence():
    mesh = members()
    mesh.join(register("a", incarnation=1), "", 0.0)
    with pytest.raises(Mismatch):
        mesh.join(register("a", incarnation=9, checkpoint_id="two"), "", 0.0)
    mesh.join(register("a", incarnation=1), "", 0.0)


def test_a_pool_and_an_attention_service_may_share_an_id():
    mesh = members()
    mesh.join(register("a"), "", 0.0)
    mesh.join(register("a", role=ATTENTION), "", 0.0)
    assert len(mesh) == 2


def test_a_departed_incarnation_stays_fenced():
    mesh = members()
    member = mesh.join(register("a", incarnation=5), "", 0.0)
    mesh.remember(member)
    assert mesh.remove(member)
    with pytest.raises(Mismatch, match="newer incarnation 5, this is 4"):
        mesh.join(register("a", incarnation=4), "", 0.0)


def test_fences_are_bounded_and_members_keep_theirs(monkeypatch):
    monkeypatch.setattr(membership, "MAX_FENCES", 3)
    mesh = members()
    mesh.remember(mesh.join(register("stays", incarnation=5), "", 0.0))
    for name in "bcdef":
        member = mesh.join(register(name, incarnation=5), "", 0.0)
        mesh.remember(member)
        mesh.remove(member)
    with pytest.raises(Mismatch):
        mesh.join(register("stays", incarnation=4), "", 0.0)
    mesh.join(register("b", incarnation=4), "", 0.0)  # forgotten long ago


def test_a_lease_ends_when_it_has_run_out_and_not_before():
    mesh = members()
    member = mesh.join(register(), "", 100.0)
    assert mesh.silent(100.0 + LEASE_S) == []
    assert mesh.silent(100.1 + LEASE_S) == [member]


def test_a_full_mesh_still_lets_its_members_come_back():
    mesh = members(max_members=1)
    mesh.join(register("a"), "", 0.0)
    with pytest.raises(Overloaded):
        mesh.join(register("b"), "", 0.0)
    mesh.join(register("a"), "", 0.0)
    assert mesh.is_successor(mesh.join(register("a", incarnation=2), "", 0.0, HAS_SECRET))
    assert len(mesh) == 1


def test_a_new_stream_of_the_same_process_is_not_dialled_again_a_moved_one_is():
    mesh = members()
    first = mesh.join(register(), "", 0.0)
    first.reachable, first.ready = True, Pieces([(0, 1)])
    second = mesh.join(register(), "", 0.0)
    assert second.reachable
    assert second.ready == first.ready
    moved = register()
    moved.address = "10.0.0.2:50052"
    assert not mesh.join(moved, "", 0.0).reachable


@pytest.mark.parametrize("incarnation", [1, 2, 2**64 - 1])
def test_a_stranger_does_not_get_a_live_members_id(incarnation):
    mesh = members(wall_ms=lambda: NOW_MS, max_ahead_s=float("inf"))
    live = mesh.join(register("a"), "", 0.0)
    for identity in (STRANGER, Identity()):
        with pytest.raises(NotReady, match="live member"):
            mesh.join(register("a", incarnation, process_key=b"another"), "", 1.0, identity)
        with pytest.raises(NotReady, match="live member"):
            mesh.join(register("a", incarnation, process_key=b""), "", 1.0, identity)
    assert mesh.is_present(live)
    mesh.remove(live)
    assert mesh.is_present(mesh.join(register("a", incarnation), "", 2.0))


@pytest.mark.parametrize("identity", [NAMED_A, HAS_SECRET])
def test_one_who_may_be_that_member_waits_and_the_older_keeps_its_place(identity):
    mesh = members()
    older = mesh.join(register("a"), "", 0.0)
    newer = mesh.join(register("a", 2), "", 0.0, identity)
    assert mesh.is_present(older)
    assert mesh.is_successor(newer)
    assert not mesh.is_present(newer)
    mesh.join(register("a"), "", 1.0)  # the older one's next stream
    assert mesh.follow(newer).incarnation == 1
    assert mesh.is_present(newer)
    with pytest.raises(Mismatch, match="fenced"):
        mesh.join(register("a"), "", 2.0, identity)


def test_a_certificate_with_a_name_is_for_that_name_only():
    mesh = members()
    with pytest.raises(Forbidden, match="is for a, not for 'b'"):
        mesh.join(register("b"), "", 0.0, NAMED_A)
    assert len(mesh) == 0


def test_one_who_has_shown_nothing_fences_nobody():
    mesh = members(wall_ms=lambda: NOW_MS)
    forged = mesh.join(register("a", NOW_MS), "", 0.0)
    mesh.remove(forged)
    mesh.join(register("a", 1), "", 0.0)


def test_an_incarnation_far_ahead_of_the_clock_is_refused_and_named():
    mesh = members(wall_ms=lambda: NOW_MS)
    limit = NOW_MS + int(1000 * MAX_AHEAD_S)
    for incarnation in (limit + 1, 2**63, 2**64 - 1):
        with pytest.raises(
            NotReady, match=r"register\.incarnation: .* ahead of this router's clock"
        ):
            mesh.join(register("a", incarnation), "", 0.0)
    mesh.join(register("a", limit), "", 0.0)


@pytest.mark.parametrize("forged", [NOW_MS + 1000, NOW_MS + int(1000 * MAX_AHEAD_S)])
def test_a_forged_incarnation_locks_an_id_no_longer_than_its_process_lives(forged):
    clock_ms = [NOW_MS]
    mesh = members(wall_ms=lambda: clock_ms[0])
    member = mesh.join(register("a", forged), "", 0.0)
    mesh.remember(member)
    mesh.remove(member)
    clock_ms[0] += 1
    mesh.join(register("a", clock_ms[0]), "", 0.0)


def test_a_clock_set_back_fences_no_living_process():
    clock_ms = [NOW_MS]
    mesh = members(wall_ms=lambda: clock_ms[0])
    first = mesh.join(register("a", NOW_MS - 5000), "", 0.0)
    mesh.remember(first)
    clock_ms[0] -= 3_600_000
    with pytest.raises(NotReady, match="ahead"):
        mesh.join(register("a", NOW_MS - 5000), "", 0.0)
    clock_ms[0] = NOW_MS - 60_000
    assert mesh.is_present(mesh.join(register("a", NOW_MS - 5000), "", 0.0))


class Membership(RuleBasedStateMachine):
    """Any order of joins, departures and silences keeps the promises."""

    ids = st.sampled_from("abc")

    def __init__(self):
        super().__init__()
        self.mesh = members(max_members=2)
        self.now_s = 0.0
        self.newest: dict[str, int] = {}
        self.streams: list[membership.Member] = []

    @rule(
        member_id=ids,
        incarnation=st.integers(0, 4),
        checkpoint_id=st.sampled_from(["one", "two"]),
        identity=st.sampled_from([STRANGER, NAMED_A, HAS_SECRET]),
    )
    def join(self, member_id, incarnation, checkpoint_id, identity):
        before = {member.key: member for member in self.mesh}
        message = register(member_id, incarnation, checkpoint_id)
        try:
            member = self.mesh.join(message, "", self.now_s, identity)
        except (Mismatch, Overloaded, NotReady, Forbidden):
            assert {member.key: member for member in self.mesh} == before
            return
        assert identity.may_be(member_id)
        assert incarnation >= self.newest.get(member_id, 0)
        self.streams.append(member)
        older = before.get(member.key)
        if older is None or older.incarnation == incarnation:
            assert self.mesh.is_present(member)
        else:
            assert identity.is_sure_to_be(member_id)
            assert self.mesh.is_present(older)
            assert self.mesh.is_successor(member)

    @precondition(lambda self: len(self.mesh))
    @rule(data=st.data())
    def a_member_shows_itself(self, data):
        member = data.draw(st.sampled_from(sorted(self.mesh, key=lambda one: one.key)))
        self.mesh.remember(member)
        self._shown(member)

    @precondition(lambda self: any(map(self.mesh.is_successor, self.streams)))
    @rule(data=st.data())
    def a_successor_follows(self, data):
        waiting = [
            one
            for one in self.streams
            if self.mesh.is_successor(one) and self.mesh.get(one.key) is not None
        ]
        if waiting:
            member = data.draw(st.sampled_from(waiting))
            self.mesh.follow(member)
            self._shown(member)

    def _shown(self, member):
        known = self.newest.get(member.member_id, 0)
        self.newest[member.member_id] = max(known, member.incarnation)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def a_stream_ends(self, data):
        member = data.draw(st.sampled_from(self.streams))
        present = self.mesh.is_present(member)
        assert self.mesh.remove(member) == present
        assert not self.mesh.is_present(member)
        assert not self.mesh.is_successor(member)

    @rule(passed_s=st.floats(0, 2 * LEASE_S), heard=st.sets(ids))
    def time_passes(self, passed_s, heard):
        self.now_s += passed_s
        for member in (*self.mesh, *filter(self.mesh.is_successor, self.streams)):
            if member.member_id in heard:
                member.last_seen_s = self.now_s
        silent = self.mesh.silent(self.now_s)
        assert not {member.member_id for member in silent} & heard
        for member in silent:
            self.mesh.remove(member)

    @rule()
    def an_empty_mesh_is_founded_anew(self):
        if not len(self.mesh):
            self.mesh.forget_model()

    @invariant()
    def promises(self):
        present = list(self.mesh)
        assert len({member.key for member in present}) == len(present) <= 2
        assert len({member.model for member in present}) <= 1
        for member in present:
            assert member.incarnation >= self.newest.get(member.member_id, 0)
            assert member.model == self.mesh.model


Membership.TestCase.settings = examples(60, stateful_step_count=30)
TestMembership = Membership.TestCase
