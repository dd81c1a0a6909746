"""Pools' own measurements become shares of the load, but not differences that may be noise."""

import pytest

from protos import router_pb2
from router_svc.members.member import Offer, read_register
from router_svc.placement.goals import hosts_of
from router_svc.placement.planner import plan
from router_svc.placement.speeds import relative_speeds
from rpc.mesh.pieces import Pieces

EVERYTHING = Pieces.all_of(6, 4)


def offers(*experts_per_s, speed=1.0):
    return [
        Offer(
            available=EVERYTHING,
            requested=Pieces(),
            capacity_pieces=0,
            experts_per_s=each,
            speed=speed,
        )
        for each in experts_per_s
    ]


def member(name, experts_per_s):
    register = router_pb2.Register(
        role=router_pb2.MEMBER_ROLE_POOL,
        member_id=name,
        incarnation=1,
        address="10.0.0.1:1",
        checkpoint_id="one",
        num_layers=6,
        num_experts=4,
        protocol_major=1,
        offer=router_pb2.PoolOffer(available=EVERYTHING.to_message(), experts_per_s=experts_per_s),
    )
    pool = read_register(register, "10.0.0.1", 0.0)
    pool.status = router_pb2.MemberStatus(state=router_pb2.MEMBER_STATE_READY)
    return pool


def test_what_differs_little_from_the_median_is_alike():
    assert relative_speeds(offers(900, 1000, 1200)) == [1.0, 1.0, 1.0]
    assert relative_speeds(offers(1000, 1000, 3000)) == [1.0, 1.0, 3.0]
    assert relative_speeds(offers(250, 1000, 1100)) == [0.25, 1.0, 1.0]
    assert relative_speeds([]) == []


def test_a_reading_of_a_starved_start_does_not_take_all_load_away():
    assert relative_speeds(offers(59, 11_000, 11_000)) == [pytest.approx(1 / 8), 1.0, 1.0]


def test_a_pool_that_has_not_measured_is_as_fast_as_it_says_beside_the_median():
    older = offers(0, speed=2.0)
    assert relative_speeds(older + offers(1000, 1000)) == [2.0, 1.0, 1.0]
    assert relative_speeds(older + offers(0)) == [2.0, 1.0]


def test_what_pools_measured_decides_how_many_layers_each_gets():
    pools = [member("a", 1e4), member("b", 2e4), member("c", 1.05e4)]
    hosts = hosts_of(pools)
    assert [host.speed for host in hosts] == [1.0, pytest.approx(1.905, abs=0.001), 1.0]
    made = plan(hosts, num_layers=6, num_experts=4)
    assert len(made.hold["b"].layers) == 3


@pytest.mark.parametrize("wrong", [-1.0, 1e12, float("nan"), float("inf")])
def test_a_speed_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"offer\.experts_per_s: allowed are"):
        member("a", wrong)
