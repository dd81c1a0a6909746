"""However two streams take their turns, blocks arrive as if all copies were made at once."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.kv import side_stream
from attention_svc.kv.read_back_cost import ReadBackCost
from attention_svc.kv.side_stream import SideStream
from tests.support.attention_svc.fake_streams import Machine
from tests.support.examples import examples

LAYERS, BLOCKS, SLOTS, WORDS = 2, 7, 6, 3


@examples(1000, 50)
@given(st.integers(0, 2**32))
def test_any_order_that_the_streams_allow_gives_the_same(seed: int) -> None:
    chance = Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch)
        one = 2 * LAYERS * WORDS * torch.int64.itemsize
        patch.setattr(side_stream, "BUFFER_BYTES", chance.randint(1, 3) * one)
        patch.setattr(SideStream, "_on_device", lambda self, blocks: torch.tensor(blocks))
        pages = torch.arange(2 * LAYERS * BLOCKS * WORDS).reshape(2, LAYERS, BLOCKS, WORDS)
        slots = -torch.arange(SLOTS * 2 * LAYERS * WORDS).reshape(SLOTS, 2, LAYERS, WORDS)
        expected_pages, expected_slots = pages.clone(), slots.clone()
        cost = ReadBackCost()
        stream = SideStream((pages[0], pages[1]), slots, cost)
        for number in range(chance.randint(1, 8)):
            kind = chance.choice(("out", "back", "step"))
            some = chance.sample(range(BLOCKS), chance.randint(1, SLOTS))
            others = chance.sample(range(SLOTS), len(some))
            if kind == "step":  # a step that writes blocks
                with machine:
                    for block in some:
                        pages[:, :, block].copy_(torch.tensor(1000 + number))
                expected_pages[:, :, some] = 1000 + number
                continue
            pairs = list(zip(some, others, strict=True))
            with machine:
                if kind == "out":
                    stream.move_out({slot: block for block, slot in pairs})
                else:
                    stream.read_back(dict(pairs))
            for block, slot in pairs:
                if kind == "out":
                    expected_slots[slot] = expected_pages[:, :, block]
                else:
                    expected_pages[:, :, block] = expected_slots[slot]
        machine.run(chance)
        assert torch.equal(slots, expected_slots)
        assert torch.equal(pages, expected_pages)


def test_copies_that_have_ended_are_measured_when_the_next_are_made() -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch)
        patch.setattr(SideStream, "_on_device", lambda self, blocks: torch.tensor(blocks))
        pages = torch.zeros((2, LAYERS, BLOCKS, WORDS), dtype=torch.int64)
        slots = torch.zeros((SLOTS, 2, LAYERS, WORDS), dtype=torch.int64)
        cost = ReadBackCost()
        stream = SideStream((pages[0], pages[1]), slots, cost)
        with machine:
            stream.move_out({0: 1, 1: 2})
            stream.move_out({2: 3})  # the first ones are under way: these are not measured
        assert cost._copying.seconds_each is None
        machine.run(Random(1))
        with machine:
            stream.read_back({4: 0})
        assert cost._copying.seconds_each == 0.5  # two blocks took a second
