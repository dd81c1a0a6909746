"""Blocks are read back where copying them took less time than computing their positions."""

from attention_svc.kv.read_back_cost import ReadBackCost


def test_it_pays_until_both_are_measured():
    cost = ReadBackCost()
    assert cost.pays(1, 1)
    cost.note_copied(1, 1e9)
    assert cost.pays(1, 1)
    cost.note_computed(1, 1.0)
    assert not cost.pays(1, 1)


def test_the_cheaper_of_both_wins():
    cost = ReadBackCost()
    cost.note_copied(100, 1.0)  # 10 ms a block
    cost.note_computed(500, 1.0)  # 2 ms a position
    assert cost.pays(2, 32)
    assert cost.pays(1, 6)
    assert not cost.pays(1, 4)


def test_what_was_measured_last_counts_most_and_many_more_than_few():
    cost = ReadBackCost()
    cost.note_copied(1, 0.01)
    cost.note_computed(1, 1.0)  # a step of one row is all waiting
    cost.note_computed(1000, 1.0)
    assert not cost.pays(16, 16)
    for _ in range(50):
        cost.note_computed(16, 16.0)  # it has become slow
    assert cost.pays(16, 16)
