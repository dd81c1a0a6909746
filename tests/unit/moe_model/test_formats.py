"""One set of names for weight formats; what flags and files called them before is understood."""

import pytest
import torch

from attention_svc.config import AttentionConfig
from expert_svc.config import ExpertConfig
from moe_model.formats import FORMATS, choose_format, read_format
from moe_model.kernels.cpu.formats import FORMATS as PANEL_FORMATS
from moe_model.numerics import DTYPES, Numerics, dtype_name, is_invariant


@pytest.mark.parametrize("name", FORMATS)
def test_the_kernels_panels_have_the_sizes_of_the_table(name: str) -> None:
    held, panels = FORMATS[name], PANEL_FORMATS[name]
    assert (held.bits, held.group, held.scale_bytes) == (
        panels.bits,
        panels.group,
        panels.scale_bytes,
    )
    weight = torch.randn(2, panels.panel, panels.padded(100)).to(torch.bfloat16)
    packed = panels.pack(weight)
    assert packed.shape == (2, panels.panel_bytes(100))
    assert panels.unpack(packed).shape == weight.shape
    assert packed.numel() == held.size_bytes(2 * panels.panel, panels.padded(100))


@pytest.mark.parametrize(("older", "name"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_flags_take_older_names_and_keep_the_one(older: str, name: str) -> None:
    given = {"dtype": older, "expert_dtype": older, "linear_dtype": older}
    attention = AttentionConfig(transport="in_process", **given)
    assert {attention.dtype, attention.expert_dtype, attention.linear_dtype} == {name}
    pool = ExpertConfig(dtype=older, expert_dtype=older)
    assert {pool.dtype, pool.expert_dtype} == {name}
    assert read_format("--format", older) == read_format("--format", name) == name


@pytest.mark.parametrize("flag", ["dtype", "expert_dtype"])
def test_an_unknown_name_is_refused_with_what_there_is(flag: str) -> None:
    wanted = f"--{flag.replace('_', '-')} must be one of auto, f32, bf16.*, got 'half'"
    with pytest.raises(ValueError, match=wanted):
        ExpertConfig(**{flag: "half"})


def test_int4_with_wide_groups_can_be_asked_for() -> None:
    assert ExpertConfig(expert_dtype="int4_g128").expert_dtype == "int4_g128"
    assert choose_format("int4_g128", "--expert-dtype", "bf16") == "int4_g128"
    narrow, wide = (FORMATS[name].size_bytes(3072, 1536) for name in ("int4", "int4_g128"))
    assert wide / narrow == pytest.approx(66 / 72)


def test_a_name_of_a_dtype_is_that_of_its_format() -> None:
    assert [dtype_name(dtype) for dtype in DTYPES.values()] == ["f32", "bf16"]
    assert dtype_name(torch.int8) == "int8"
    assert set(DTYPES) < set(FORMATS)


def test_ids_are_spelled_as_former_versions_spell_them() -> None:
    """Services compare them: within one mesh there may be both during an upgrade."""
    ids = [Numerics(weight_format=name, kernel="native-7", isa="avx512").id for name in FORMATS]
    assert ids == [
        f"{name}/native-7/avx512"
        for name in ("float32", "bfloat16", "fp8", "int8", "int4", "int4_g128")
    ]
    assert all(map(is_invariant, ids))
    assert not is_invariant("bfloat16/onednn-2.9/avx512")
