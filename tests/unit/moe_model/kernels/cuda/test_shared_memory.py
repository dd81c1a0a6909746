"""No kernel, as it is launched for M2, needs more shared memory than a GPU has for a program.

What is launched is recorded on tensors without memory, and compiled ahead of time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

LIMITS = {80: 163, 89: 99, 90: 227}
"""Architecture -> KiB that one program may have, after NVIDIA's CUDA C++ Programming Guide."""

SCRIPT = """
import json, sys
import numpy as np, torch, triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler
from triton.compiler import ASTSource
from attention_svc.kv.cache import KvCache
from moe_model.families.known import parse_config
from moe_model.kernels.cuda import attention, codes, experts, linear
from moe_model.maths.kv_layout import Int8Layout, PlainLayout
from moe_model.maths.step_meta import ChunkMeta
from tests.support.moe_model.m2_config import M2

architecture, limit = int(sys.argv[1]), int(sys.argv[2]) * 1024
config, meta = parse_config({"model_type": "minimax_m2", **M2}), torch.device("meta")
KINDS = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32", torch.int64: "i64",
         torch.int8: "i8"}
launched = {}

# Shared memory is laid out before these two, which take a third of the time.
compiler.CUDABackend.make_ptx = lambda self, source, metadata, *_: metadata.update(name="") or ""
compiler.CUDABackend.make_cubin = lambda self, *_: b""

def note(kernel, grid, *args, num_warps=4, num_stages=3, **constants):
    constants = {name: getattr(value, "value", value) for name, value in constants.items()}
    given = dict(zip((one for one in kernel.arg_names if one not in constants), args, strict=True))
    types = {}
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            types[name] = ("*" + KINDS[value.dtype], True)
        elif isinstance(value, float):
            types[name] = ("fp32", False)
        elif value == 1:
            constants[name] = 1
        else:
            types[name] = ("i32", value % 16 == 0)
    key = (kernel.__name__, tuple(types.items()), tuple(constants.items()), num_warps, num_stages)
    launched[key] = kernel

for module in (attention, experts, linear):
    module.launch = note
    module.shared_memory_bytes = lambda device: limit

def rows(count, size, dtype=torch.bfloat16):
    return torch.empty((count, size), dtype=dtype, device=meta)

for name in codes.FORMATS:
    held = experts.CudaExperts(config.num_experts, config, name, meta)
    for count in (1, 32, 512, 2048, 8192):
        ids = torch.empty((count, config.top_k), dtype=torch.int32, device=meta)
        held.routed_parts(rows(count, config.hidden_size), ids, rows(count, 8, torch.float32))
formats = {**codes.FORMATS, "f32": codes.F32, "rows": codes.FP8_ROWS}
for name, format in formats.items():
    held = [torch.empty(shape(8192, 3072), dtype=dtype, device=meta) for shape, dtype in (
        (format.codes_shape, format.dtype), (format.scales_shape, format.scale_dtype))]
    made = linear.CudaLinear((codes.Coded(*held, format),), (8192,), 3072)
    for count in (16, 64, 512, 2048):
        made.parts_of(rows(count, 3072))
for head_dim in (128, 256):
    for layout in (PlainLayout(8, head_dim, torch.bfloat16), Int8Layout(8, head_dim)):
        if not attention.can_attend(torch.bfloat16, layout, 48, 8):
            continue
        cache = KvCache(layout, num_layers=1, num_blocks=8, block_size=16, device=meta)
        made = attention.CudaAttention(cache, 48, 8)
        one = torch.empty(1, dtype=torch.int64, device=meta)
        for count in (20, 100, 400, 2000):
            q = torch.empty((count, 48, head_dim), dtype=torch.bfloat16, device=meta)
            chunk = ChunkMeta(rows=slice(0, count), positions_T=one, block_table_W=one,
                              num_cached=count + 4096)
            made._chunk(0, q, chunk, torch.empty_like(q))
        made.decode(0, q, attention.DecodeRows(one, one, one, one, one), torch.empty_like(q))

found = {}
for key, kernel in launched.items():
    name, types, constants, warps, stages = key
    types, constants = dict(types), dict(constants)
    if not any(word in name for word in ("gate_up", "down", "linear", "decode_spans", "chunk")):
        continue
    signature = {one: types[one][0] if one in types else "constexpr" for one in kernel.arg_names}
    even = [["tt.divisibility", 16]]
    attributes = {(at,): even for at, one in enumerate(kernel.arg_names)
                  if one in types and types[one][1]}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={
        "num_warps": warps, "num_stages": stages, "enable_fp_fusion": True})
    sizes = {one: value for one, value in constants.items() if one.isupper()}
    found[f"{name} {sizes} {warps} {stages}"] = made.metadata.shared
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("architecture", LIMITS)
def test_no_launch_for_m2_needs_more_shared_memory_than_there_is(
    tmp_path: Path, architecture: int
) -> None:
    script = tmp_path / "compile_launches.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {
        "TRITON_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    limit = LIMITS[architecture]
    done = subprocess.run(
        [sys.executable, str(script), str(architecture), str(limit)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    taken = json.loads(done.stdout.splitlines()[-1])
    assert len(taken) > 30
    assert {name: size for name, size in taken.items() if size > limit * 1024} == {}
