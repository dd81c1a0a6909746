"""pack() against a position-by-position computation."""

from array import array

import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.engine.row_shares import Slice
from attention_svc.engine.step import pack, partly_filled
from tests.support.attention_svc.sequences import sequence

BLOCK = 4
CPU = torch.device("cpu")


@st.composite
def plans(draw):
    """Slices of sequences with blocks of their own, in scattered order."""
    free = draw(st.permutations(range(60)))
    plan = []
    for _ in range(draw(st.integers(1, 5))):
        known = draw(st.integers(1, 20))
        num_output = draw(st.integers(0, known - 1))
        tokens = [draw(st.integers(0, 49)) for _ in range(known)]
        made = sequence(tokens[: known - num_output], tokens[known - num_output :])
        made.num_computed = draw(st.integers(0, known - 1))
        num_tokens = draw(st.integers(1, known - made.num_computed))
        needed = -(-(made.num_computed + num_tokens) // BLOCK) + draw(st.integers(0, 1))
        made.block_table, free = array("q", free[:needed]), free[needed:]
        plan.append(Slice(made, num_tokens))
    return plan


@given(plans())
def test_every_row_has_its_token_position_slot_and_table(plan: list[Slice]):
    step = pack(plan, BLOCK)
    meta = step.meta
    ordered = [p for p in plan if p.num_tokens == 1] + [p for p in plan if p.num_tokens > 1]
    rows = [
        (part, position)
        for part in ordered
        for position in range(
            part.sequence.num_computed, part.sequence.num_computed + part.num_tokens
        )
    ]
    assert meta.num_rows == len(rows)
    for row, (part, position) in enumerate(rows):
        made = part.sequence
        known = [*made.prompt_ids, *made.output_ids]
        assert meta.token_ids_T[row] == known[position]
        assert meta.positions_T[row] == position
        slot = made.block_table[position // BLOCK] * BLOCK + position % BLOCK
        assert meta.slot_mapping_T[row] == slot
    slots = meta.slot_mapping_T.tolist()
    assert len(set(slots)) == len(slots)
    decode = [part for part in ordered if part.num_tokens == 1]
    assert meta.num_decode == len(decode)
    assert meta.is_decode == (len(decode) == len(plan))
    for index, part in enumerate(decode):
        cached = part.sequence.num_computed + 1
        assert meta.decode_lens_B[index] == cached
        blocks = -(-cached // BLOCK)
        table = meta.decode_tables_BW[index].tolist()
        own = list(part.sequence.block_table)
        assert table == own[:blocks] + own[:1] * (len(table) - blocks)
    for chunk, part in zip(meta.chunks, ordered[len(decode) :], strict=True):
        start, stop = part.sequence.num_computed, part.sequence.num_computed + part.num_tokens
        assert chunk.positions_T.tolist() == list(range(start, stop))
        assert meta.positions_T[chunk.rows].tolist() == list(range(start, stop))
        assert chunk.num_cached == stop
        blocks = -(-stop // BLOCK)
        assert chunk.block_table_W.tolist() == list(part.sequence.block_table[:blocks])
    assert step.completing == [part for part in ordered if part.completes]
    assert step.continuing == [part for part in ordered if not part.completes]
    last = {id(part): row for row, (part, _) in enumerate(rows)}
    assert meta.logit_rows_B.tolist() == [last[id(part)] for part in step.completing]
    assert meta.open_rows_C.tolist() == [last[id(part)] for part in step.continuing]


@given(plans())
def test_blocks_begun_but_not_filled_are_named_once(plan: list[Slice]):
    written = {}
    for part in plan:
        made = part.sequence
        for position in range(made.num_computed, made.num_computed + part.num_tokens):
            written.setdefault(made.block_table[position // BLOCK], set()).add(position % BLOCK)
    expected = [block for block, rows in written.items() if 0 in rows and len(rows) < BLOCK]
    assert sorted(partly_filled(plan, BLOCK)) == sorted(expected)
