"""A scheduler with an engine and a cache made of plain Python, which notes what each row holds.

Content of a row: the tokens it was computed from, or POISON for a sequence with the
token NAN in it. Whatever happens, a sequence may only ever read its own tokens' rows.
"""

from random import Random

from attention_svc.engine.row_shares import Slice
from attention_svc.engine.scheduler import Scheduler
from attention_svc.engine.step import partly_filled
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from attention_svc.kv.host_blocks import HostBlocks, Pays
from attention_svc.kv.moves import Move, MoveOut, ReadBack
from attention_svc.sequence.sequence import Sequence
from rpc.errors import Overloaded
from tests.support.attention_svc.sequences import sequence

BLOCK = 4
NAN = 49
POISON = "poison"
MAX_WAITING, MAX_WAITING_TOKENS = 6, 100


class World:
    def __init__(
        self,
        *,
        blocks: int,
        budget: int,
        running: int,
        prefix_cache: bool = True,
        slots: int = 0,
        pays: Pays = lambda blocks, tokens: True,
    ):
        """`slots`: of host memory."""
        self.pool = BlockPool(blocks)
        self.host = HostBlocks(slots, pays) if slots else None
        self.tables = BlockTables(
            self.pool, block_size=BLOCK, prefix_cache=prefix_cache, host=self.host
        )
        self.budget, self.max_running = budget, min(running, budget)
        self.scheduler = Scheduler(
            self.tables,
            max_batch_tokens=budget,
            max_running=running,
            max_waiting=MAX_WAITING,
            max_waiting_tokens=MAX_WAITING_TOKENS,
        )
        self.rows: dict[tuple[int, int], object] = {}
        self.slot_rows: dict[tuple[int, int], object] = {}
        self.alive: list[Sequence] = []
        self.num_rows = 0

    def arrive(
        self, prompt: list[int], max_tokens: int, salt: str = "", **params: bool
    ) -> Sequence | None:
        """None when refused, for a reason that is checked."""
        new = sequence(prompt, max_tokens=max_tokens, **params)
        new.cache_salt = salt
        waiting, tokens = len(self.scheduler.waiting), self.scheduler.waiting_tokens
        try:
            self.scheduler.add(new)
        except ValueError:
            assert len(prompt) + max_tokens > self.tables.capacity_tokens
        except Overloaded:
            assert waiting >= MAX_WAITING or tokens + len(prompt) > MAX_WAITING_TOKENS
        else:
            self.alive.append(new)
            return new
        return None

    def cancel(self, gone: Sequence) -> None:
        gone.finished = True
        self.alive.remove(gone)
        self.scheduler.remove(gone)
        assert not gone.block_table

    def preempt(self, victim: Sequence) -> None:
        if victim in self.scheduler.running:
            self.scheduler._preempt(victim)

    def step(self, *, fails: bool = False, cancel: Sequence | None = None) -> list[Slice]:
        """One step; it may fail as a whole, and a sequence may be cancelled in the middle of it."""
        plan = self.scheduler.schedule()
        self._check_plan(plan)
        for move in self.tables.take_moves():
            self._make(move)
        for block in partly_filled(plan, BLOCK):
            self.rows.update({(block, row): None for row in range(BLOCK)})
        for part in plan:
            self._compute(part)
        for part in plan:
            self._check_reads(part)
        if cancel is not None:
            self.cancel(cancel)
        for part in plan:
            if fails and not part.sequence.finished:
                self.cancel(part.sequence)
            elif not part.sequence.finished:
                self._advance(part)
        self.num_rows += sum(part.num_tokens for part in plan)
        self.check()
        return plan

    def _make(self, move: Move) -> None:
        for row in range(BLOCK):
            if isinstance(move, MoveOut):
                self.slot_rows[move.slot, row] = self.rows.get((move.block, row))
            elif isinstance(move, ReadBack):
                held = self.slot_rows.get((move.slot, row))
                self.rows[move.block, row] = held if row < move.num_rows else None
            else:
                source = self.rows.get((move.source, row))
                self.rows[move.target, row] = source if row < move.num_rows else None

    def _compute(self, part: Slice) -> None:
        made = part.sequence
        known = [*made.prompt_ids, *made.output_ids]
        for position in range(made.num_computed, made.num_computed + part.num_tokens):
            block, row = made.block_table[position // BLOCK], position % BLOCK
            assert self.pool._references[block] == 1, "a shared block was written"
            assert position >= made.num_checked, "rows that others may be given were written"
            self.rows[block, row] = self._content(made, known[: position + 1])

    @staticmethod
    def _content(made: Sequence, tokens: list[int]) -> object:
        return POISON if NAN in tokens else (made.cache_salt, tuple(tokens))

    def _check_reads(self, part: Slice) -> None:
        """Every row of its blocks, masked ones included: 0 times another's NaN is NaN."""
        made, stop = part.sequence, part.sequence.num_computed + part.num_tokens
        known = [*made.prompt_ids, *made.output_ids]
        for position in range(-(-stop // BLOCK) * BLOCK):
            held = self.rows.get((made.block_table[position // BLOCK], position % BLOCK))
            if position < stop:
                assert held == self._content(made, known[: position + 1]), position
            else:
                assert held != POISON

    def _advance(self, part: Slice) -> None:
        made, completes = part.sequence, part.completes
        made.num_computed += part.num_tokens
        if NAN in [*made.prompt_ids, *made.output_ids][: made.num_computed]:
            self.cancel(made)
            return
        self.tables.publish(made)
        if completes:
            made.output_ids.append((sum(made.prompt_ids) + len(made.output_ids)) % 3)
            if len(made.output_ids) >= made.params.max_tokens:
                self.cancel(made)

    def _check_plan(self, plan: list[Slice]) -> None:
        assert bool(plan) == bool(self.alive), "the scheduler idles while sequences live"
        assert sum(part.num_tokens for part in plan) <= self.budget
        assert len({id(part.sequence) for part in plan}) == len(plan)
        planned = {id(part.sequence) for part in plan}
        for made in self.scheduler.running:
            assert made.num_pending > 1 or id(made) in planned, "a decode row was left out"
        for part in plan:
            assert 1 <= part.num_tokens <= part.sequence.num_pending
            room = len(part.sequence.block_table) * BLOCK
            assert part.sequence.num_computed + part.num_tokens <= room

    def check(self) -> None:
        """Check the invariants that hold between any two operations."""
        running, waiting = self.scheduler.running, list(self.scheduler.waiting)
        assert len(running) <= self.max_running
        assert sorted(map(id, running + waiting)) == sorted(map(id, self.alive))
        arrivals = [made.arrival for made in waiting]
        assert arrivals == sorted(arrivals)
        assert all(not made.block_table and made.num_computed == 0 for made in waiting)
        held: dict[int, int] = {}
        for made in running:
            assert len(set(made.block_table)) == len(made.block_table)
            for index, block in enumerate(made.block_table):
                held[block] = held.get(block, 0) + 1
                shared = self.pool._references[block] > 1
                assert not shared or index < made.num_checked // BLOCK, "shared, but not full"
        for block in range(self.pool.num_blocks):
            assert self.pool._references[block] == held.get(block, 0)
        pool = self.pool
        assert pool.num_used == len(held)
        states = [*pool._free, *pool._cached, *held]
        assert sorted(states) == list(range(pool.num_blocks))
        assert sorted(pool._block_of) == sorted(k for keys in pool._keys_of.values() for k in keys)
        assert not set(pool._free) & set(pool._keys_of)
        if self.host is not None:
            check_host(self.host)
        owners = {id(made) for made in self.tables._computing.values()}
        assert owners <= {id(made) for made in running}, "a claim outlived its sequence"

    def finish(self) -> None:
        """Every sequence runs to its end, and every block comes back."""
        for _ in range(5000):
            if not self.alive:
                break
            self.step()
        assert not self.alive, "a sequence never finished"
        assert not self.pool.num_used
        assert not self.tables._computing


def check_host(host: HostBlocks) -> None:
    """Every slot is free or has keys, and every key leads to the slot that has it."""
    assert sorted([*host._free, *host._order]) == list(range(host.num_slots))
    assert set(host._keys_of) == set(host._order)
    assert host.num_used == len(host._order) <= host.num_slots
    held = {key: slot for slot, keys in host._keys_of.items() for key in keys}
    assert all(host._keys_of.values())
    assert held == host._slot_of


def some_prompt(chance: Random, most: int) -> list[int]:
    """Often a prefix of, or the same as, another one; now and then with a NaN in it."""
    length = chance.randint(1, most)
    stem = [chance.choice((1, 2)) if i % 9 == 0 else 3 for i in range(length)]
    if chance.random() < 0.3:
        stem[-1] = chance.randint(4, 9)
    if chance.random() < 0.05:
        stem[chance.randrange(length)] = NAN
    return stem


def random_operation(world: World, chance: Random) -> None:
    kind = chance.random()
    if kind < 0.3:
        prompt = some_prompt(chance, 40)
        for _ in range(chance.choice((1, 1, 1, 3))):  # n > 1 now and then
            world.arrive(prompt, chance.randint(1, 12), chance.choice(("", "", "", "tenant")))
    elif kind < 0.4 and world.alive:
        world.cancel(chance.choice(world.alive))
    elif kind < 0.45 and world.scheduler.running:
        world.preempt(max(world.scheduler.running, key=lambda made: made.arrival))
    else:
        gone = chance.choice(world.alive) if world.alive and chance.random() < 0.05 else None
        world.step(fails=chance.random() < 0.02, cancel=gone)
    world.check()
