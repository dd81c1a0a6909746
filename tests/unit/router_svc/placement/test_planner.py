"""The planner: memory, coverage, replicas, few calls, balance, stability; for any set of pools."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_svc.placement.board import Host
from router_svc.placement.loads import piece_weights
from router_svc.placement.planner import STRIPINGS, plan
from rpc.mesh.pieces import Pieces
from tests.support.examples import examples

LAYERS, EXPERTS = 3, 4
SIZES = {"num_layers": LAYERS, "num_experts": EXPERTS}
EVERYTHING = Pieces.all_of(LAYERS, EXPERTS)
sets = st.sets(
    st.tuples(st.integers(0, LAYERS - 1), st.integers(0, EXPERTS - 1)), max_size=LAYERS * EXPERTS
).map(Pieces)


@st.composite
def host_lists(draw, min_size=0):
    return [
        Host(
            pool_id=f"pool-{index}",
            available=draw(st.one_of(st.just(EVERYTHING), sets)),
            capacity_pieces=draw(st.integers(0, 9)),
            speed=draw(st.sampled_from([0.5, 1.0, 3.0])),
            current=draw(sets),
            fixed=draw(st.integers(0, 4)) == 0,
        )
        for index in range(draw(st.integers(min_size, 4)))
    ]


weights = st.one_of(
    st.just(()),
    st.lists(
        st.lists(st.sampled_from([0.0, 0.1, 1.0, 7.0]), min_size=EXPERTS, max_size=EXPERTS),
        min_size=LAYERS,
        max_size=LAYERS,
    ),
)
options = st.fixed_dictionaries(
    {"replicas": st.integers(0, 3), "striping": st.sampled_from(STRIPINGS), "weights": weights}
)


def holders(hold, piece):
    return sum(piece in pieces for pieces in hold.values())


def most_replicas(hosts, replicas) -> list[int]:
    """For each level k, how many pieces can have k holders at once; by brute flow."""
    free = [host for host in hosts if not host.fixed]
    fixed = [host.current & host.available for host in hosts if host.fixed]
    taken: dict[str, set] = {host.pool_id: set() for host in free}
    reached = []
    for level in range(1, replicas + 1):
        for piece in EVERYTHING:
            have = sum(piece in pieces for pieces in fixed)
            have += sum(piece in pieces for pieces in taken.values())
            if have < level:
                augment(free, taken, piece, set())
        reached.append(
            sum(
                sum(piece in pieces for pieces in fixed)
                + sum(piece in pieces for pieces in taken.values())
                >= level
                for piece in EVERYTHING
            )
        )
    return reached


def augment(free, taken, piece, seen) -> bool:
    for host in free:
        mine = taken[host.pool_id]
        if piece in mine or piece not in host.available or (host.pool_id, piece) in seen:
            continue
        seen.add((host.pool_id, piece))
        if len(mine) < (host.capacity_pieces or len(host.available)):
            mine.add(piece)
            return True
        for other in sorted(mine):
            mine.remove(other)
            mine.add(piece)
            if augment(free, taken, other, seen):
                return True
            mine.remove(piece)
            mine.add(other)
    return False


@examples(40)
@given(host_lists(), options)
def test_memory_and_files_are_respected_and_nothing_is_held_too_often(hosts, options):
    made = plan(hosts, **SIZES, **options)
    assert set(made.hold) == {host.pool_id for host in hosts}
    for host in hosts:
        hold = made.hold[host.pool_id]
        assert hold <= host.available
        if host.fixed:
            assert hold == host.current & host.available
        elif host.capacity_pieces:
            assert len(hold) <= host.capacity_pieces
    free = {h.pool_id: made.hold[h.pool_id] for h in hosts if not h.fixed}
    for piece in EVERYTHING:
        most = len(hosts) if options["weights"] else options["replicas"] or len(hosts)
        if holders(made.hold, piece) > most:
            assert not holders(free, piece)


@examples(40)
@given(host_lists(min_size=1), options)
def test_as_many_pieces_as_memory_allows_have_a_holder_then_two_then_more(hosts, options):
    made = plan(hosts, **SIZES, **options)
    wanted = min(options["replicas"] or len(hosts), len(hosts))
    reached = [
        sum(holders(made.hold, piece) >= level for piece in EVERYTHING)
        for level in range(1, wanted + 1)
    ]
    assert reached == most_replicas(hosts, wanted)
    assert made.dark == Pieces(p for p in EVERYTHING if holders(made.hold, p) == 0)
    asked = max(1, options["replicas"])
    assert made.short == Pieces(p for p in EVERYTHING if holders(made.hold, p) < asked)


@examples(40)
@given(host_lists(), options, st.randoms())
def test_the_same_again_changes_nothing_in_any_order(hosts, options, random):
    made = plan(hosts, **SIZES, **options)
    again = [
        Host(
            pool_id=host.pool_id,
            available=host.available,
            capacity_pieces=host.capacity_pieces,
            speed=host.speed,
            current=made.hold[host.pool_id],
            fixed=host.fixed,
        )
        for host in hosts
    ]
    random.shuffle(again)
    assert plan(again, **SIZES, **options).hold == made.hold


def pools(count, capacity=0, held=None, available=None, layers=8, experts=6, speeds=None):
    everything = Pieces.all_of(layers, experts)
    return [
        Host(
            pool_id=f"pool-{index}",
            available=available or everything,
            capacity_pieces=capacity,
            current=(held or {}).get(f"pool-{index}", Pieces()),
            speed=speeds[index] if speeds else 1.0,
        )
        for index in range(count)
    ]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_layer_striping_keeps_layers_whole_and_counts_even(count, replicas):
    made = plan(pools(count), num_layers=8, num_experts=6, replicas=replicas)
    layers = [len(hold.layers) for hold in made.hold.values()]
    assert all(hold.count(layer) == 6 for hold in made.hold.values() for layer in hold.layers)
    assert sum(layers) == 8 * replicas
    assert max(layers) - min(layers) <= 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_expert_striping_spreads_each_layer_in_runs(count):
    made = plan(pools(count), num_layers=8, num_experts=6, striping="expert")
    for layer in range(8):
        shares = [hold.count(layer) for hold in made.hold.values()]
        assert sum(shares) == 6
        assert max(shares) - min(shares) <= 1
    for hold in made.hold.values():
        assert all(len(entry.ranges) <= 1 for entry in hold.to_message().layers)


def test_a_layer_is_cut_only_where_it_fits_nowhere():
    made = plan(pools(3, capacity=17), num_layers=8, num_experts=6)
    parts = [sum(layer in hold.layers for hold in made.hold.values()) for layer in range(8)]
    assert not made.dark
    assert sorted(parts)[:6] == [1] * 6
    assert sum(parts) <= 11


def test_faster_pools_get_more():
    made = plan(pools(3, speeds=[1.0, 2.0, 1.0]), num_layers=8, num_experts=6)
    assert [len(hold.layers) for hold in made.hold.values()] == [2, 4, 2]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("weights", [(), [[1.0, 2.0, 3.0] * 8] * 8])
@pytest.mark.parametrize("speeds", [[1.0, 3.0, 1.0, 1.0], [0.5, 1.0, 1.0, 2.0]])
def test_work_follows_speed_where_each_layer_is_spread(speeds, weights, replicas):
    sizes = {"num_layers": 8, "num_experts": 24}
    hosts = pools(4, layers=8, experts=24, speeds=speeds)
    options = {"weights": weights, "replicas": replicas, "striping": "expert"}
    made = plan(hosts, **sizes, **options)
    assert not made.short
    assert made.imbalance < 1.2
    for layer in range(8):
        row = weights[layer] if weights else [1.0] * 24
        work = [sum(row[e] for e in hold.experts(layer)) for hold in made.hold.values()]
        for done, speed in zip(work, speeds, strict=True):
            # A pool that can hold everything at most holds everything: once, at most.
            even = min(sum(row), sum(row) * replicas * speed / sum(speeds))
            assert done == pytest.approx(even, abs=4.5)


def test_a_pool_that_has_become_faster_is_given_more_and_only_what_it_gains_moves():
    before = plan(pools(3, layers=12), num_layers=12, num_experts=6)
    held = dict(before.hold)
    hosts = pools(3, held=held, layers=12, speeds=[1.0, 1.0, 2.0])
    after = plan(hosts, num_layers=12, num_experts=6)
    assert [len(hold.layers) for hold in after.hold.values()] == [3, 3, 6]
    assert after.gained(hosts) == 2 * 6


HOT = [[5.0] * 3 + [1.0] * 3 if layer in (0, 3, 4, 7) else [1.0] * 6 for layer in range(8)]


def test_hot_layers_are_kept_apart():
    made = plan(pools(2), num_layers=8, num_experts=6, weights=HOT)
    loads = [sum(HOT[layer][expert] for layer, expert in hold) for hold in made.hold.values()]
    assert max(loads) == min(loads) == 48


def test_hot_experts_are_kept_apart_in_each_layer():
    warm = [[min(3.0, weight) for weight in row] for row in HOT]  # not enough for more holders
    made = plan(pools(2), num_layers=8, num_experts=6, striping="expert", weights=warm)
    for layer in range(8):
        loads = [
            sum(warm[layer][expert] for expert in hold.experts(layer))
            for hold in made.hold.values()
        ]
        assert max(loads) == (6 if max(warm[layer]) == 3 else 3)


def test_a_short_record_weighs_little_and_a_long_one_all():
    assert piece_weights([]) == []
    assert piece_weights([[0.0] * 8]) == [[1.0] * 8]
    short, long = piece_weights([[4.0] + [0.0] * 7])[0], piece_weights([[4e6] + [0.0] * 7])[0]
    assert 1 < short[0] < 1.05
    assert long[0] == pytest.approx(8, rel=1e-3)


@pytest.mark.parametrize("replicas", [1, 2])
def test_hot_experts_get_more_holders_where_there_is_memory_and_lose_them_when_they_cool(replicas):
    kind = {"num_layers": 2, "num_experts": 8, "striping": "expert", "replicas": replicas}
    hosts = pools(4, layers=2, experts=8)
    base = plan(hosts, **kind)
    heat = [[20.0] + [1.0] * 7, [1.0] * 8]
    heated = plan(pools(4, layers=2, experts=8, held=base.hold), weights=heat, **kind)
    assert holders(heated.hold, (0, 0)) == 4
    assert {holders(heated.hold, (1, expert)) for expert in range(8)} == {replicas}
    lukewarm = [[1.5] + [1.0] * 7, [1.0] * 8]
    kept = plan(pools(4, layers=2, experts=8, held=heated.hold), weights=lukewarm, **kind)
    cold = plan(pools(4, layers=2, experts=8, held=heated.hold), **kind)
    assert replicas < holders(kept.hold, (0, 0)) <= 3
    assert holders(cold.hold, (0, 0)) == replicas


def test_no_memory_means_no_further_holders_and_a_wanted_holder_comes_first():
    kind = {"num_layers": 1, "num_experts": 4, "striping": "expert"}
    heat = [[9.0, 1.0, 1.0, 1.0]]
    sizes = {"layers": 1, "experts": 4}
    full = plan(pools(2, capacity=2, **sizes), weights=heat, **kind)
    assert sum(map(len, full.hold.values())) == 4
    roomy = plan(pools(3, capacity=2, **sizes), weights=heat, **kind)
    assert holders(roomy.hold, (0, 0)) == 2
    left = {name: hold for name, hold in roomy.hold.items() if name != "pool-2"}
    assert not plan(pools(2, capacity=2, held=left, **sizes), weights=heat, **kind).dark


@examples(40)
@given(host_lists(), options, st.integers(0, 5))
def test_no_more_is_loaded_for_the_sake_of_load_than_allowed(hosts, options, allowance):
    none = plan(hosts, **SIZES, **options, allowance=0)
    some = plan(hosts, **SIZES, **options, allowance=allowance)
    assert some.gained(hosts) <= none.gained(hosts) + allowance
    assert some.dark == none.dark
    assert some.short == none.short


@pytest.mark.parametrize("striping", STRIPINGS)
@pytest.mark.parametrize("count, replicas", list(itertools.product((1, 2, 3, 4), (1, 2))))
def test_a_pool_that_joins_is_all_that_loads(striping, count, replicas):
    kind = {"num_layers": 8, "num_experts": 6, "striping": striping, "replicas": replicas}
    before = plan(pools(count), **kind)
    joined = pools(count + 1, held=before.hold)
    after = plan(joined, **kind)
    if count >= replicas:
        newcomer = after.hold[f"pool-{count}"]
        assert newcomer
        assert after.gained(joined) == len(newcomer)


@pytest.mark.parametrize("striping", STRIPINGS)
@pytest.mark.parametrize("count, replicas", [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_pool_that_leaves_moves_little_more_than_what_it_held(striping, count, replicas):
    kind = {"num_layers": 8, "num_experts": 6, "striping": striping, "replicas": replicas}
    before = plan(pools(count), **kind)
    left = pools(count - 1, held=before.hold)
    lost = len(before.hold[f"pool-{count - 1}"])
    assert plan(left, **kind).gained(left) <= lost + 6


def test_room_is_made_by_moving_what_others_can_take():
    first, second = Pieces([(0, 0)]), Pieces([(0, 1)])
    hosts = [
        Host(pool_id="picky", available=first | second, capacity_pieces=1, current=first),
        Host(pool_id="spare", available=first, capacity_pieces=1),
    ]
    made = plan(hosts, num_layers=1, num_experts=2)
    assert made.hold == {"picky": second, "spare": first}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="striping"):
        plan([], **SIZES, striping="diagonal")
    with pytest.raises(ValueError, match="speed of slow"):
        Host(pool_id="slow", available=EVERYTHING, speed=0.0)
