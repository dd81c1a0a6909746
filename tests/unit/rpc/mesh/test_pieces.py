"""Sets of pieces: laws, wire format, limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import pieces_pb2
from protos.limits import MAX_EXPERTS, MAX_LAYERS
from rpc.mesh.pieces import Pieces, parse_ranges

LAYERS, EXPERTS = 6, 70
pairs = st.sets(st.tuples(st.integers(0, LAYERS - 1), st.integers(0, EXPERTS - 1)))


def read(message: pieces_pb2.PieceSet) -> Pieces:
    return Pieces.from_message(message, num_layers=LAYERS, num_experts=EXPERTS, field="held")


def message_of(*layers: tuple[int, list[tuple[int, int]]]) -> pieces_pb2.PieceSet:
    return pieces_pb2.PieceSet(
        layers=[
            pieces_pb2.LayerPieces(
                layer_idx=layer,
                ranges=[pieces_pb2.ExpertRange(first=f, count=c) for f, c in ranges],
            )
            for layer, ranges in layers
        ]
    )


@given(pairs)
def test_survives_the_wire_and_iterates_in_order(chosen):
    pieces = Pieces(chosen)
    again = read(pieces_pb2.PieceSet.FromString(pieces.to_message().SerializeToString()))
    assert again == pieces
    assert hash(again) == hash(pieces)
    assert list(pieces) == sorted(chosen)
    assert len(pieces) == len(chosen)
    assert bool(pieces) == bool(chosen)


@given(pairs, pairs)
def test_agrees_with_python_sets(left, right):
    a, b = Pieces(left), Pieces(right)
    assert set(a | b) == left | right
    assert set(a & b) == left & right
    assert set(a - b) == left - right
    assert (a <= b) == (left <= right)
    assert (a == b) == (left == right)
    assert Pieces.union((a, b, a)) == a | b
    assert (
        set(a.missing(LAYERS, EXPERTS))
        == {(layer, expert) for layer in range(LAYERS) for expert in range(EXPERTS)} - left
    )


@given(pairs, st.integers(-1, LAYERS), st.integers(-1, EXPERTS))
def test_contains_and_counts_by_layer(chosen, layer, expert):
    pieces = Pieces(chosen)
    assert ((layer, expert) in pieces) == ((layer, expert) in chosen)
    of_layer = sorted(e for owner, e in chosen if owner == layer)
    assert pieces.experts(layer) == tuple(of_layer)
    assert pieces.count(layer) == len(of_layer)
    assert pieces.layers == tuple(sorted({owner for owner, _ in chosen}))


@given(pairs, st.integers(0, LAYERS * EXPERTS + 1))
def test_first_takes_the_lowest_in_layer_order(chosen, limit):
    assert list(Pieces(chosen).first(limit)) == sorted(chosen)[:limit]


def test_a_whole_m2_pool_costs_one_range_a_layer():
    everything = Pieces.all_of(62, 256)
    assert len(everything) == 15_872
    assert len(everything.to_message().SerializeToString()) < 1024
    assert everything == Pieces.grid(range(62), range(256))
    assert not everything.missing(62, 256)


@pytest.mark.parametrize(
    "message",
    [
        message_of((LAYERS, [(0, 1)])),
        message_of((2**32 - 1, [(0, 1)])),
        message_of((1, [(0, 1)]), (1, [(1, 1)])),
        message_of((2, [(0, 1)]), (1, [(0, 1)])),
        message_of((0, [(0, 0)])),
        message_of((0, [(0, 2), (1, 1)])),
        message_of((0, [(EXPERTS - 1, 2)])),
        message_of((0, [(2**32 - 1, 2**32 - 1)])),
    ],
)
def test_a_set_outside_the_model_or_out_of_order_is_refused_by_name(message):
    with pytest.raises(ValueError, match="held: "):
        read(message)


@pytest.mark.parametrize(
    "sizes", [(0, 1), (1, 0), (MAX_LAYERS + 1, 1), (1, MAX_EXPERTS + 1), (-1, 8)]
)
def test_sizes_of_no_real_model_are_refused_before_anything_is_allocated(sizes):
    with pytest.raises(ValueError, match=r"a (model|layer) has"):
        Pieces.all_of(*sizes)
    with pytest.raises(ValueError, match=r"a (model|layer) has"):
        Pieces.from_message(pieces_pb2.PieceSet(), num_layers=sizes[0], num_experts=sizes[1])


def test_a_piece_with_a_negative_or_absurd_number_is_refused():
    for piece in [(-1, 0), (0, -1), (0, 2**40), (2**40, 0)]:
        with pytest.raises(ValueError, match="got"):
            Pieces([piece])


@pytest.mark.parametrize(
    "text, numbers",
    [("0-3,5", (0, 1, 2, 3, 5)), ("7", (7,)), (" 2 - 3 , 1", (1, 2, 3)), ("1,1-2", (1, 2))],
)
def test_range_flags_are_read(text, numbers):
    assert parse_ranges(text, "--layers") == numbers


@pytest.mark.parametrize(
    "text", ["", "a", "3-1", "1-", "-1", "1,,2", "0-99999999999", "0-100", "²"]
)
def test_a_bad_range_flag_is_refused_by_name(text):
    with pytest.raises(ValueError, match="--experts: "):
        parse_ranges(text, "--experts", limit=100)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_any_list_of_numbers_reads_back(numbers):
    assert parse_ranges(",".join(map(str, numbers)), "--layers") == tuple(sorted(numbers))


def test_shows_itself_briefly():
    shown = repr(Pieces.grid([0, 2], [0, 1, 2, 5]))
    assert shown == "Pieces(8: layer 0 experts 0-2,5; layer 2 experts 0-2,5)"
