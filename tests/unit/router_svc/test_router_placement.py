"""Assignments: memory respected, nothing that cannot be loaded, coverage never worse."""

from hypothesis import given
from hypothesis import strategies as st

from router_svc.placement import Offer, Replicas, assign
from rpc.pieces import Pieces

LAYERS, EXPERTS = 3, 6
EVERYTHING = Pieces.all_of(LAYERS, EXPERTS)
sets = st.sets(
    st.tuples(st.integers(0, LAYERS - 1), st.integers(0, EXPERTS - 1)), max_size=LAYERS * EXPERTS
).map(Pieces)
capacities = st.integers(0, LAYERS * EXPERTS + 2)


@given(sets, sets, capacities, sets, st.lists(sets, max_size=4))
def test_memory_is_respected_and_nothing_is_assigned_that_cannot_be_loaded(
    available, requested, capacity, held, others
):
    offer = Offer(available=available, requested=requested, capacity_pieces=capacity)
    hold = assign(offer, held=held, replicas=Replicas(others))
    assert hold <= available
    assert not capacity or len(hold) <= capacity
    if requested:
        assert hold <= requested


@given(sets, capacities, sets, st.lists(sets, max_size=4))
def test_coverage_is_never_worse_and_the_memory_is_used(available, capacity, held, others):
    offer = Offer(available=available, requested=Pieces(), capacity_pieces=capacity)
    hold = assign(offer, held=held, replicas=Replicas(others))
    room = capacity or len(available)
    assert len(hold) == min(room, len(available))
    if len(held & available) <= room:
        assert held & available <= hold
    elsewhere = Pieces.union(others)
    open_pieces = available - elsewhere - held
    spare = max(0, room - len(held & available))
    # What nobody holds comes first, in layer order.
    assert open_pieces.first(spare) <= hold


@given(sets, capacities, st.lists(sets, max_size=5))
def test_more_holders_never_come_before_fewer(available, capacity, others):
    hold = assign(
        Offer(available=available, requested=Pieces(), capacity_pieces=capacity),
        held=Pieces(),
        replicas=Replicas(others),
    )

    def holders(piece):
        return sum(piece in other for other in others)

    taken = [holders(piece) for piece in hold]
    left = [holders(piece) for piece in available - hold]
    assert not taken or not left or max(taken) <= min(left)


@given(sets, st.lists(sets, max_size=6))
def test_pieces_come_by_number_of_holders(wanted, holders):
    levels = list(Replicas(holders).fewest_first(wanted))
    assert Pieces.union(levels) == wanted
    for count, level in enumerate(levels):
        for piece in level:
            assert sum(piece in pieces for pieces in holders) == count


def test_beyond_16_holders_all_count_as_equal():
    one, other = Pieces([(0, 0)]), Pieces([(0, 1)])
    replicas = Replicas([one] * 16 + [other] * 40)
    levels = list(replicas.fewest_first(one | other))
    assert [len(level) for level in levels] == [0] * 16 + [2]


def test_a_request_by_flags_is_granted_as_far_as_loadable_and_room_allows():
    offer = Offer(
        available=Pieces.grid([0, 1], range(6)),
        requested=Pieces.grid([1, 2], range(6)),
        capacity_pieces=4,
    )
    assert assign(offer, held=Pieces(), replicas=Replicas()) == Pieces.grid([1], range(4))


def test_pools_of_equal_memory_joining_in_turn_stripe_the_model_by_layer():
    holds: list[Pieces] = []
    for _ in range(3):
        offer = Offer(available=EVERYTHING, requested=Pieces(), capacity_pieces=6)
        holds.append(assign(offer, held=Pieces(), replicas=Replicas(holds)))
    assert holds == [Pieces.grid([layer], range(6)) for layer in range(3)]


def test_a_thousand_full_replicas_of_m2_are_weighed_in_bounded_work():
    whole = Pieces.all_of(62, 256)
    offer = Offer(available=whole, requested=Pieces(), capacity_pieces=100)
    assert assign(offer, held=Pieces(), replicas=Replicas([whole] * 999)) == whole.first(100)
