"""Whatever Python passes to native code: a result or a ValueError, never a bad memory access."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moe_model.host_memory import empty_bytes
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.attention import PagedRows, attend_paged
from moe_model.kernels.cpu.ffn import KernelExperts, expert_rows, expert_sums, routed_sums
from moe_model.kernels.cpu.formats import FORMATS
from moe_model.kernels.cpu.packed import PackedMatrix, slice_outputs, unpack
from moe_model.kernels.cpu.packing import pack_expert, pack_linear
from moe_model.maths.linear import linear
from moe_model.quant import StoredExpert, StoredMatrix, scale_shape
from tests.support.examples import examples
from tests.support.moe_model.float_packing import pack, put
from tests.support.moe_model.kernel_cases import needs_kernels, random

pytestmark = [needs_kernels, pytest.mark.hypothesis]

D, F, SLOTS, ROWS = 34, 5, 4, 6
NUMBERS = [torch.bfloat16, torch.float32, torch.float16, torch.float64, torch.int8, torch.uint8]
E4M3 = torch.float8_e4m3fn
SIZES = st.sampled_from([-1, 0, 1, 31, 32, 33, 34, 128, 130])
NAMES = st.sampled_from([*FORMATS])
OR_NONE = st.sampled_from([*FORMATS, "none"])


def try_both(run: Callable[..., None], **arguments: tuple[st.SearchStrategy, st.SearchStrategy]):
    """Call `run` with arguments as they should be, some of them replaced by odd ones.

    Args:
        run: calls native code, which may raise ValueError, and checks what it gives.
        arguments: strategies of sound and of odd values, by name.
    """
    ended: Counter[str] = Counter()

    @st.composite
    def mostly_sound(draw: st.DrawFn) -> dict[str, Any]:
        odd = draw(st.sets(st.sampled_from(sorted(arguments)), min_size=1, max_size=2))
        if draw(st.integers(0, 3)) == 0:
            odd = set()
        return {name: draw(pair[name in odd]) for name, pair in arguments.items()}

    @examples(200, few=40)
    @given(mostly_sound())
    def example(drawn: dict[str, Any]) -> None:
        try:
            run(**drawn)
        except ValueError:
            ended["refused"] += 1
        else:
            ended["accepted"] += 1

    example()
    assert min(ended["accepted"], ended["refused"]) > 3, ended


def ones(dtypes: list[torch.dtype], *shape: int) -> tuple[st.SearchStrategy, st.SearchStrategy]:
    """A tensor of this shape and the first of these dtypes; of a shape near it and any dtype."""
    return st.just(torch.ones(shape).to(dtypes[0])), tensors(shapes_near(*shape), dtypes)


def tensors(shapes: st.SearchStrategy, dtypes: list[torch.dtype]) -> st.SearchStrategy[Tensor]:
    """Of any shape and dtype; not always contiguous."""

    def make(shape: tuple[int, ...], dtype: torch.dtype, kind: str) -> Tensor:
        if kind == "strided" and shape:
            wide = torch.ones((*shape[:-1], 2 * shape[-1]))
            return wide.to(dtype)[..., ::2]
        if kind == "transposed" and len(shape) == 2:
            return torch.ones(shape[::-1]).to(dtype).t()
        return torch.ones(shape).to(dtype)

    kinds = st.sampled_from(["plain", "plain", "strided", "transposed"])
    return st.builds(make, shapes, st.sampled_from(dtypes), kinds)


def shapes_near(*sound: int) -> st.SearchStrategy[tuple[int, ...]]:
    """The right shape half of the time, else one near it."""
    size = st.one_of(st.sampled_from(sound), st.integers(0, 40))
    return st.one_of(st.just(sound), st.lists(size, max_size=4).map(tuple))


def indices(length: int, below: int) -> tuple[st.SearchStrategy, st.SearchStrategy]:
    good = st.lists(st.integers(0, below - 1), min_size=length, max_size=length)
    wide = st.one_of(st.integers(-3, below + 3), st.sampled_from([2**62, -(2**63)]))
    bad = st.lists(wide, max_size=length + 2)
    dtypes = st.sampled_from([torch.int64] * 4 + [torch.int32, torch.float32])
    made = st.builds(lambda numbers, dtype: torch.tensor(numbers).to(dtype), good | bad, dtypes)
    views = st.just(torch.tensor(1)) | st.just(torch.arange(2 * length)[::2].clamp(max=0))
    return good.map(torch.tensor), made | views


@pytest.fixture(scope="module")
def held() -> KernelExperts:
    """The last slot stays empty."""
    experts = KernelExperts(SLOTS, D, F)
    for slot in range(SLOTS - 1):
        put(experts, slot, random(2 * F, D), random(D, F))
    return experts


@pytest.mark.parametrize("as_rows", [False, True])
def test_experts(held: KernelExperts, as_rows: bool):
    def run(hidden: Tensor, rows: Tensor, slots: Tensor, weights: Tensor) -> None:
        out = (expert_rows if as_rows else expert_sums)(hidden, rows, slots, weights, held)
        assert hidden.dtype == torch.bfloat16
        assert all(0 <= row < len(hidden) for row in rows.tolist())
        assert all(0 <= slot < SLOTS - 1 for slot in slots.tolist())
        assert out.shape == ((len(slots) if as_rows else len(hidden)), D)
        assert bool(out.isfinite().all())

    try_both(
        run,
        hidden=ones(NUMBERS, ROWS, D),
        rows=indices(4, ROWS),
        slots=indices(4, SLOTS - 1),
        weights=ones([torch.float32, *NUMBERS], 4),
    )


def test_routed_experts(held: KernelExperts):
    def run(hidden: Tensor, ids: Tensor, weights: Tensor, out: Tensor) -> None:
        routed_sums(hidden, ids, weights, held, out)
        assert ids.dtype == torch.int32
        assert all(0 <= slot < SLOTS - 1 for row in ids.tolist() for slot in row)
        assert out.shape == hidden.shape == (len(ids), D)
        assert bool(out.isfinite().all())

    def rows_of(numbers: st.SearchStrategy, *lengths: int) -> st.SearchStrategy:
        row = st.tuples(numbers, numbers)
        return st.lists(row, min_size=min(lengths), max_size=max(lengths)).map(torch.tensor)

    slots = st.integers(0, SLOTS - 2)
    sound = rows_of(slots, ROWS)
    beyond = rows_of(slots | st.sampled_from([-1, SLOTS - 1, SLOTS]), ROWS)
    odd = sound.map(Tensor.long) | sound.map(Tensor.char) | beyond.map(Tensor.int)
    others = rows_of(slots, ROWS - 1, ROWS + 1).map(Tensor.int)
    try_both(
        run,
        hidden=ones(NUMBERS, ROWS, D),
        ids=(sound.map(Tensor.int), odd | others),
        weights=ones([torch.float32, *NUMBERS], ROWS, 2),
        out=ones([torch.float32, *NUMBERS], ROWS, D),
    )


def test_slots_of_experts():
    def run(num: int, d: int, f: int, slot: int, w13: Tensor, w2: Tensor, format: str) -> None:
        experts = KernelExperts(num, d, f, format)
        put(experts, slot, w13, w2)
        assert experts.unpacked(slot)[0].shape == (2 * f, d)

    for size in (-1, 0):
        with pytest.raises(ValueError, match=r"must be"):
            KernelExperts(4, size, F)
    try_both(
        run,
        num=(st.just(4), SIZES),
        d=(st.just(D), SIZES),
        f=(st.just(F), SIZES),
        slot=(st.integers(0, 3), st.integers(-2, 5)),
        w13=ones([torch.bfloat16, *NUMBERS], 2 * F, D),
        w2=ones([torch.bfloat16, *NUMBERS], D, F),
        format=(NAMES, OR_NONE),
    )


def test_linears():
    def run(
        format: str,
        outputs: int,
        inputs: int,
        missing: int,
        start: int,
        count: int,
        rows: Tensor,
        out_dtype: torch.dtype | None,
    ) -> None:
        known = format in FORMATS
        size = FORMATS[format].size_bytes(max(outputs, 0), max(inputs, 0)) if known else 64
        data = empty_bytes(max(0, size + min(missing, 0))).zero_()
        weight = PackedMatrix(format, outputs, inputs, data)
        assert not unpack(weight).any()
        out = linear(rows, weight, out_dtype)
        assert out.shape == (len(rows), outputs)
        part = linear(rows, slice_outputs(weight, start, count), out_dtype)
        assert part.shape == (len(rows), min(count, outputs - start))

    try_both(
        run,
        format=(st.sampled_from([name for name in FORMATS if name != "f32"]), OR_NONE),
        outputs=(st.sampled_from([65, 96, 128]), SIZES),
        inputs=(st.just(34), SIZES),
        missing=(st.just(0), st.integers(-64, 64)),
        start=(st.sampled_from([0, 32, 64]), st.integers(-33, 97)),
        count=(st.integers(1, 70), st.integers(-1, 70)),
        rows=ones(NUMBERS, 3, 34),
        out_dtype=(st.none(), st.sampled_from(NUMBERS)),
    )


def test_attention():
    def run(q: Tensor, keys: Tensor, values: Tensor, groups: int, plan: Tensor, tables: Tensor):
        out = attend_paged(q, keys, values, groups, PagedRows(plan, tables))
        assert out.shape == (q.shape[0], q.shape[1] * q.shape[2])

    number = st.sampled_from([-1, 0, 1, 2, 3, 40, 2**62])
    segments = st.lists(st.tuples(number, number, number, number), max_size=3)
    odd = st.builds(
        lambda rows, dtype: torch.tensor(rows or torch.empty(0, 4).tolist()).to(dtype),
        segments,
        st.sampled_from([torch.int64] * 4 + [torch.int32]),
    )
    sound = st.integers(3, 40).map(lambda cached: torch.tensor([[0, 3, cached, 0]]))
    try_both(
        run,
        q=ones(NUMBERS, 3, 4, 32),
        keys=ones(NUMBERS, 5, 16, 2, 32),
        values=ones(NUMBERS, 5, 16, 2, 32),
        groups=(st.just(2), st.sampled_from([-1, 0, 1, 3, 4, 8])),
        plan=(sound, odd),
        tables=indices(3, 5),
    )


def test_attention_without_heads_or_pages():
    """Empty shapes must not divide by zero."""
    table, segment = torch.zeros(1, dtype=torch.int64), torch.tensor([[0, 1, 1, 0]])
    for heads, blocks, size in ((0, 4, 16), (4, 0, 16), (4, 4, 0)):
        q, pages = torch.ones(1, heads, 32).bfloat16(), torch.ones(blocks, size, 2, 32).bfloat16()
        with pytest.raises(ValueError, match=r"heads|segments|tables"):
            attend_paged(q, pages, pages, 2, PagedRows(segment, table))


def stored(*shape: int) -> tuple[st.SearchStrategy, st.SearchStrategy]:
    def make(values: Tensor, scales: Tensor | None, block: tuple[int, int], fits: bool):
        if fits and values.dim() == 2 and values.dtype == E4M3 and min(block) > 0:
            scales = torch.ones(scale_shape(*values.shape, *block))
        return StoredMatrix(values=values, scales=scales, block=block, where="w")

    blocks = st.sampled_from([(128, 128)] * 4 + [(32, 256), (8, 8), (0, 128), (-1, 1)])
    scales = tensors(shapes_near(1, 1), [torch.float32, torch.float32, torch.bfloat16])
    values = tensors(shapes_near(*shape), [E4M3, E4M3, *NUMBERS])
    odd = st.builds(make, values, st.none() | scales, blocks, st.booleans())
    dtypes = st.sampled_from([E4M3, torch.bfloat16, torch.float32])
    sound = st.builds(
        lambda dtype, block: make(torch.ones(shape).to(dtype), None, block, True),
        dtypes,
        st.sampled_from([(128, 128), (32, 256), (8, 8)]),
    )
    return sound, odd


def test_packing():
    def run(first: StoredMatrix, second: StoredMatrix, format: str) -> None:
        parts = [first, second]
        packed = pack_linear(parts, format)
        assert {part.values.shape[1] for part in parts} == {packed.num_inputs}
        assert packed.num_outputs == sum(part.values.shape[0] for part in parts)
        assert bool(unpack(packed).isfinite().all())

    with pytest.raises(ValueError, match="at least one"):
        pack_linear([], "bf16")
    try_both(run, first=stored(33, 40), second=stored(33, 40), format=(NAMES, OR_NONE))


def test_packing_experts():
    def run(w1: StoredMatrix, w3: StoredMatrix, w2: StoredMatrix, format: str) -> None:
        gate_up, down = pack_expert(StoredExpert(w1=w1, w3=w3, w2=w2), format)
        assert w1.values.shape == w3.values.shape == w2.values.shape[::-1]
        assert (down.num_outputs, down.num_inputs) == w2.values.shape
        assert gate_up.num_inputs == down.num_outputs
        assert bool(unpack(gate_up).isfinite().all())

    try_both(
        run,
        w1=stored(33, 40),
        w3=stored(33, 40),
        w2=stored(40, 33),
        format=(NAMES, OR_NONE),
    )


def test_repacking():
    def run(weight: Tensor, format: str) -> None:
        assert unpack(pack(weight, format)).shape == weight.shape

    sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))
    sound = tensors(sizes, [torch.bfloat16, torch.float32])
    try_both(
        run,
        weight=(sound, tensors(shapes_near(33, 40), NUMBERS)),
        format=(NAMES, OR_NONE),
    )


def test_raw_functions_count_their_arguments():
    native = library.need().native
    for name in ("linear", "expert_ffn", "attention", "stream_read", "pack", "set_threads"):
        function = getattr(native, name)
        with pytest.raises(TypeError, match="takes"):
            function()
        with pytest.raises(TypeError, match="takes"):
            function(*[1] * 40)
    for number in (0, -1, 1025):
        with pytest.raises(ValueError, match=r"threads|negative"):
            library.need().set_threads(number)
    with pytest.raises(ValueError, match="no such format"):
        native.pack(99, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1)
    with pytest.raises(ValueError, match="weight format"):
        native.linear(99, 0, 0, 0, 0, 0, 0, 0)
