"""Who is a member: agreement, fencing, leases, limits."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protos import router_pb2
from router_svc import membership
from router_svc.member import Model
from router_svc.membership import Members
from rpc.errors import Mismatch, Overloaded
from rpc.pieces import Pieces

POOL, ATTENTION = router_pb2.MEMBER_ROLE_POOL, router_pb2.MEMBER_ROLE_ATTENTION
LEASE_S = 5.0


def register(member_id="a", incarnation=1, checkpoint_id="one", role=POOL, **fields):
    fields = {"num_layers": 2, "num_experts": 4, "protocol_major": 1, **fields}
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
    assert mesh.remove(member)
    with pytest.raises(Mismatch, match="newer incarnation 5, this is 4"):
        mesh.join(register("a", incarnation=4), "", 0.0)


def test_fences_are_bounded_and_members_keep_theirs(monkeypatch):
    monkeypatch.setattr(membership, "MAX_FENCES", 3)
    mesh = members()
    mesh.join(register("stays", incarnation=5), "", 0.0)
    for name in "bcdef":
        mesh.remove(mesh.join(register(name, incarnation=5), "", 0.0))
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
    mesh.join(register("a", incarnation=2), "", 0.0)
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
        member_id=ids, incarnation=st.integers(0, 4), checkpoint_id=st.sampled_from(["one", "two"])
    )
    def join(self, member_id, incarnation, checkpoint_id):
        before = {member.key: member for member in self.mesh}
        try:
            member = self.mesh.join(register(member_id, incarnation, checkpoint_id), "", self.now_s)
        except (Mismatch, Overloaded):
            assert {member.key: member for member in self.mesh} == before
            return
        assert incarnation >= self.newest.get(member_id, 0)
        self.newest[member_id] = incarnation
        self.streams.append(member)
        assert self.mesh.is_present(member)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def a_stream_ends(self, data):
        member = data.draw(st.sampled_from(self.streams))
        present = self.mesh.is_present(member)
        assert self.mesh.remove(member) == present
        assert not self.mesh.is_present(member)

    @rule(passed_s=st.floats(0, 2 * LEASE_S), heard=st.sets(ids))
    def time_passes(self, passed_s, heard):
        self.now_s += passed_s
        for member in self.mesh:
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
            assert member.incarnation == self.newest[member.member_id]
            assert member.model == self.mesh.model


Membership.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMembership = Membership.TestCase
