"""Whatever Python passes to native code: a result or a ValueError, never a bad memory access."""

import pytest
import torch
from hypothesis import given, settings
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
from tests.support.moe_model.float_packing import pack, put
from tests.support.moe_model.kernel_cases import needs_kernels, random

pytestmark = needs_kernels

D, F, SLOTS, ROWS = 34, 5, 4, 6
NUMBERS = [torch.bfloat16, torch.float32, torch.float16, torch.float64, torch.int8, torch.uint8]
E4M3 = torch.float8_e4m3fn
SIZES = st.sampled_from([-1, 0, 1, 31, 32, 33, 34, 128, 130])


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


def indices(length: int, below: int) -> st.SearchStrategy[Tensor]:
    good = st.lists(st.integers(0, below - 1), min_size=length, max_size=length)
    wide = st.one_of(st.integers(-3, below + 3), st.sampled_from([2**62, -(2**63)]))
    bad = st.lists(wide, max_size=length + 2)
    dtypes = st.sampled_from([torch.int64] * 4 + [torch.int32, torch.float32])
    made = st.builds(lambda numbers, dtype: torch.tensor(numbers).to(dtype), good | bad, dtypes)
    return made | st.just(torch.tensor(1)) | st.just(torch.arange(2 * length)[::2].clamp(max=0))


@pytest.fixture(scope="module")
def held() -> KernelExperts:
    """The last slot stays empty."""
    experts = KernelExperts(SLOTS, D, F)
    for slot in range(SLOTS - 1):
        put(experts, slot, random(2 * F, D), random(D, F))
    return experts


@settings(max_examples=150)
@given(
    hidden=tensors(shapes_near(ROWS, D), [torch.bfloat16] * 4 + NUMBERS),
    rows=indices(4, ROWS),
    slots=indices(4, SLOTS - 1),
    as_rows=st.booleans(),
    weights=tensors(shapes_near(4), [torch.float32] * 4 + NUMBERS),
)
def test_experts(held, hidden, rows, slots, as_rows, weights):
    call = expert_rows if as_rows else expert_sums
    try:
        out = call(hidden, rows, slots, weights, held)
    except ValueError:
        return
    assert hidden.dtype == torch.bfloat16
    assert all(0 <= row < len(hidden) for row in rows.tolist())
    assert all(0 <= slot < SLOTS - 1 for slot in slots.tolist())
    assert out.shape == ((len(slots) if as_rows else len(hidden)), D)
    assert bool(out.isfinite().all())


@settings(max_examples=100)
@given(
    hidden=tensors(shapes_near(ROWS, D), [torch.bfloat16] * 4 + NUMBERS),
    ids=st.lists(st.tuples(*[st.integers(-1, SLOTS)] * 2), min_size=ROWS - 1, max_size=ROWS + 1),
    ids_dtype=st.sampled_from([torch.int32] * 4 + [torch.int64, torch.int8]),
    weights=tensors(shapes_near(ROWS, 2), [torch.float32] * 4 + NUMBERS),
    out=tensors(shapes_near(ROWS, D), [torch.float32] * 4 + NUMBERS),
)
def test_routed_experts(held, hidden, ids, ids_dtype, weights, out):
    try:
        routed_sums(hidden, torch.tensor(ids, dtype=ids_dtype), weights, held, out)
    except ValueError:
        return
    assert ids_dtype == torch.int32
    assert all(0 <= slot < SLOTS - 1 for row in ids for slot in row)
    assert out.shape == hidden.shape == (len(ids), D)
    assert bool(out.isfinite().all())


@settings(max_examples=60)
@given(
    num=SIZES,
    d=SIZES,
    f=SIZES,
    slot=st.integers(-2, 4),
    w13=shapes_near(2 * F, D),
    w2=shapes_near(D, F),
    dtype=st.sampled_from(NUMBERS),
    format=st.sampled_from([*FORMATS, "none"]),
)
def test_slots_of_experts(num, d, f, slot, w13, w2, dtype, format):
    with pytest.raises(ValueError, match=r"must be"):
        KernelExperts(4, d if d < 1 else 0, F, format)
    try:
        experts = KernelExperts(num, d, f, format)
        put(experts, slot, torch.ones(w13).to(dtype), torch.ones(w2).to(dtype))
    except ValueError:
        return
    assert experts.unpacked(slot)[0].shape == (2 * f, d)


@settings(max_examples=80)
@given(
    outputs=SIZES,
    inputs=SIZES,
    missing=st.integers(-64, 64),
    start=st.integers(-33, 97),
    count=st.integers(-1, 70),
    format=st.sampled_from([*FORMATS, "none"]),
    rows=tensors(shapes_near(3, 34), NUMBERS),
    out_dtype=st.sampled_from([*NUMBERS, None]),
)
def test_linears(outputs, inputs, missing, start, count, format, rows, out_dtype):
    size = FORMATS[format].size_bytes(max(outputs, 0), max(inputs, 0)) if format in FORMATS else 64
    try:
        data = empty_bytes(max(0, size + min(missing, 0))).zero_()
        weight = PackedMatrix(format, outputs, inputs, data)
        assert not unpack(weight).any()
        out = linear(rows, weight, out_dtype)
        assert out.shape == (len(rows), outputs)
        part = linear(rows, slice_outputs(weight, start, count), out_dtype)
    except ValueError:
        return
    assert part.shape == (len(rows), min(count, outputs - start))


@settings(max_examples=150)
@given(
    q=tensors(shapes_near(3, 4, 32), [torch.bfloat16] * 6 + NUMBERS),
    keys=tensors(shapes_near(5, 16, 2, 32), [torch.bfloat16] * 6 + NUMBERS),
    values=tensors(shapes_near(5, 16, 2, 32), [torch.bfloat16] * 6 + NUMBERS),
    groups=st.sampled_from([2] * 8 + [-1, 0, 1, 3, 4, 8]),
    segments=st.lists(
        st.tuples(*(st.sampled_from([-1, 0, 1, 2, 3, 40, 2**62]) for _ in range(4))), max_size=3
    ),
    sound=st.booleans(),
    tables=indices(3, 5),
    dtype=st.sampled_from([torch.int64] * 4 + [torch.int32]),
)
def test_attention(q, keys, values, groups, segments, sound, tables, dtype):
    rows = [(0, 3, 40, 0)] if sound else segments
    plan = torch.tensor(rows or torch.empty(0, 4).tolist()).to(dtype)
    try:
        out = attend_paged(q, keys, values, groups, PagedRows(plan, tables))
    except ValueError:
        return
    assert out.shape == (q.shape[0], q.shape[1] * q.shape[2])


def test_attention_without_heads_or_pages():
    """Empty shapes must not divide by zero."""
    table, segment = torch.zeros(1, dtype=torch.int64), torch.tensor([[0, 1, 1, 0]])
    for heads, blocks, size in ((0, 4, 16), (4, 0, 16), (4, 4, 0)):
        q, pages = torch.ones(1, heads, 32).bfloat16(), torch.ones(blocks, size, 2, 32).bfloat16()
        with pytest.raises(ValueError, match=r"heads|segments|tables"):
            attend_paged(q, pages, pages, 2, PagedRows(segment, table))


def stored() -> st.SearchStrategy[StoredMatrix]:
    def make(values: Tensor, scales: Tensor | None, block: tuple[int, int], fits: bool):
        if fits and values.dim() == 2 and values.dtype == E4M3 and min(block) > 0:
            scales = torch.ones(scale_shape(*values.shape, *block))
        return StoredMatrix(values=values, scales=scales, block=block, where="w")

    blocks = st.sampled_from([(128, 128)] * 4 + [(32, 256), (8, 8), (0, 128), (-1, 1)])
    scales = tensors(shapes_near(1, 1), [torch.float32, torch.float32, torch.bfloat16])
    values = tensors(shapes_near(33, 40), [E4M3, E4M3, *NUMBERS])
    return st.builds(make, values, st.none() | scales, blocks, st.booleans())


@settings(max_examples=150)
@given(parts=st.lists(stored(), max_size=3), format=st.sampled_from([*FORMATS, "none"]))
def test_packing(parts, format):
    try:
        packed = pack_linear(parts, format)
    except ValueError:
        return
    widths = {part.values.shape[1] for part in parts}
    assert widths == {packed.num_inputs}
    assert packed.num_outputs == sum(part.values.shape[0] for part in parts)
    assert bool(unpack(packed).isfinite().all())


@settings(max_examples=80)
@given(
    w1=stored(),
    w3=stored(),
    w2=stored(),
    alike=st.booleans(),
    format=st.sampled_from([name for name in FORMATS if name != "f32"]),
)
def test_packing_experts(w1, w3, w2, alike, format):
    expert = StoredExpert(w1=w1, w3=w1 if alike else w3, w2=w2)
    try:
        gate_up, down = pack_expert(expert, format)
    except ValueError:
        return
    assert (down.num_outputs, down.num_inputs) == tuple(w1.values.shape[::-1])
    assert bool(unpack(gate_up).isfinite().all())


@settings(max_examples=40)
@given(weight=tensors(shapes_near(33, 40), NUMBERS), format=st.sampled_from([*FORMATS, "none"]))
def test_repacking(weight, format):
    try:
        packed = pack(weight, format)
    except ValueError:
        return
    assert unpack(packed).shape == weight.shape


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
