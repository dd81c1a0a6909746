"""A packed folder's matrices on a GPU hold the numbers that they hold on a CPU."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from expert_svc.weight_store import WeightStore
from moe_model.kernels.cpu.ffn import KernelExperts
from moe_model.kernels.cpu.packed import unpack
from moe_model.kernels.cpu.packing import pack_expert, pack_linear
from moe_model.kernels.cuda import from_panels
from moe_model.kernels.cuda.backend import CudaBackend, CudaLinears
from moe_model.kernels.cuda.codes import FORMATS, decode
from moe_model.kernels.cuda.experts import CudaExperts
from moe_model.kernels.cuda.linear import CudaLinear, RoutingMatrix
from moe_model.maths.layer import LayerWeights
from moe_model.quant import StoredExpert, StoredMatrix, quantise
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import build_manifest
from moe_model.weights.pack_checkpoint import PackJob, write_packed
from moe_model.weights.packed_checkpoint import PackedCheckpoint
from rpc.mesh.pieces import Pieces
from tests.support.moe_model.toy_family import TOY_CONFIG, parse_config

HIDDEN, EXPERT = 168, 72
CONFIG = parse_config({**TOY_CONFIG, "width": HIDDEN, "part_width": EXPERT, "parts": 2})


def matrix(outputs: int, inputs: int, *, fp8: bool) -> StoredMatrix:
    values = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(outputs)) / 8
    if not fp8:
        return StoredMatrix(values=values, scales=None, block=(1, 1), where="w")
    codes, scales = quantise(values)
    return StoredMatrix(values=codes, scales=scales, block=(128, 128), where="w")


def decoded(linear: CudaLinear) -> Tensor:
    parts = zip(linear.parts, linear.sizes, strict=True)
    return torch.cat([decode(part, size, linear.num_inputs) for part, size in parts]).cpu()


@pytest.mark.parametrize("name", FORMATS)
def test_an_expert_has_the_codes_of_the_stored_one_and_the_cpus_numbers(
    name: str, device: torch.device
) -> None:
    shapes = {"w1": (EXPERT, HIDDEN), "w3": (EXPERT, HIDDEN), "w2": (HIDDEN, EXPERT)}
    expert = StoredExpert(**{key: matrix(*shape, fp8=True) for key, shape in shapes.items()})
    packed = pack_expert(expert, name)
    held = CudaExperts(2, CONFIG, name, device)
    held.put(0, expert)
    held.put_panels(1, *packed)
    for stored, laid in zip(held.get(0), held.get(1), strict=True):
        assert torch.equal(stored.codes, laid.codes)
        assert torch.equal(stored.scales, laid.scales)
    on_cpu = KernelExperts(1, HIDDEN, EXPERT, name)
    on_cpu.put_packed(0, *packed)
    found = [
        decode(one, *shape).cpu() for one, shape in zip(held.get(1), shapes.values(), strict=True)
    ]
    w13_HD, w2_DF = on_cpu.unpacked(0)
    assert torch.equal(torch.cat([found[0], found[1]]), w13_HD)
    assert torch.equal(found[2], w2_DF)


@pytest.mark.parametrize("fp8", [True, False])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sizes", [[300], [128, 128, 40], [80, 40, 40]])
def test_a_linear_has_the_cpus_numbers(
    name: str, sizes: list[int], fp8: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In slices, with parts that begin with a scale's outputs and with such that do not."""
    monkeypatch.setattr(from_panels, "AT_ONCE", 1)
    stored = [matrix(size, 136, fp8=fp8) for size in sizes]
    packed = pack_linear(stored, name)
    linears = CudaLinears(torch.bfloat16, name, device)
    for linear in (linears.from_panels(packed, sizes), linears.make(stored)):
        assert isinstance(linear, CudaLinear)
        assert torch.equal(decoded(linear), unpack(packed))


def test_routing_stays_float32(device: torch.device) -> None:
    packed = pack_linear([matrix(40, 136, fp8=False)], "f32")
    routing = CudaLinears(torch.bfloat16, "bf16", device).from_panels(packed, [40])
    assert isinstance(routing, RoutingMatrix)
    assert torch.equal(decoded(routing.coded), unpack(packed))


def numbers(layer: LayerWeights) -> dict[str, Tensor]:
    found = {}
    for key, value in vars(layer).items():
        if isinstance(value, RoutingMatrix):
            value = value.coded
        if isinstance(value, CudaLinear):
            value = decoded(value)
        if value is not None:
            found[key] = value.cpu()
    return found


@pytest.mark.parametrize(("experts", "linears"), [("int4", "fp8"), ("fp8", "int4_g128")])
def test_a_folder_is_the_checkpoint_that_it_was_packed_from(
    experts: str, linears: str, tmp_path: Path, device: torch.device
) -> None:
    write_tiny(tmp_path / "model", fp8=True)
    source = Checkpoint.open(tmp_path / "model")
    manifest = build_manifest(source)
    job = PackJob(source=source, manifest=manifest, format=experts, linear_format=linears)
    write_packed(job, tmp_path / "packed")
    packed = PackedCheckpoint(tmp_path / "packed")
    backend = CudaBackend(torch.bfloat16, device)
    made = backend.linears(linears)
    expected, found = (numbers(one.layer(1, made)) for one in (source, packed))
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    heads = [one.lm_head(made) for one in (source, packed)]
    assert all(isinstance(head, CudaLinear) for head in heads)
    assert torch.equal(*map(decoded, heads))
    stores = [WeightStore(one, manifest, backend, experts) for one in (source, packed)]
    held = []
    for store in stores:
        store.load(Pieces([(1, 1), (1, 3)]))
        layer = store.layer(1)
        assert layer is not None
        assert isinstance(layer.weights, CudaExperts)
        held.append(layer.weights)
    for slot in range(2):
        for one, other in zip(held[0].get(slot), held[1].get(slot), strict=True):
            assert torch.equal(one.codes, other.codes)
            assert torch.equal(one.scales, other.scales)


def test_fp8_experts_with_a_scale_for_each_output_are_refused(
    tmp_path: Path, device: torch.device
) -> None:
    """Packed from bf16: a GPU has one scale for 128 outputs, and nothing is rounded twice."""
    write_tiny(tmp_path / "model", fp8=False)
    source = Checkpoint.open(tmp_path / "model")
    job = PackJob(
        source=source, manifest=build_manifest(source), format="fp8", linear_format="bf16"
    )
    write_packed(job, tmp_path / "packed")
    packed = PackedCheckpoint(tmp_path / "packed")
    backend = CudaBackend(torch.bfloat16, device)
    with pytest.raises(ValueError, match=r"layer-0000.safetensors: expert 1: .* 128 outputs"):
        WeightStore(packed, packed.manifest, backend).load(Pieces([(0, 1)]))
