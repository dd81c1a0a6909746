"""Every kernel compiles ahead of time for every architecture; none of them is here."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.places import ROOT

ARCHITECTURES = (80, 89, 90, 100, 120)
"""A100, Ada, Hopper, and Blackwell for servers and for desktops."""

COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from moe_model.kernels.cuda import grouped, linear, packing, paged, rows

BF16, F32, I8, I32, I64 = "*bf16", "*fp32", "*i8", "*i32", "*i64"
CODES = {0: (BF16, BF16, 128), 1: (I32, F32, 32), 2: (I32, BF16, 16), 3: (I32, BF16, 16)}
tiles = dict.fromkeys(("sorted_pairs", "tile_slot", "tile_first", "tile_stop", "num_tiles"), I32)
attended = {"q": BF16, "key_scales": F32, "value_scales": F32, "tables": I64,
            "table": I64, "lens": I64, "items": I64,
            "table_of_row": I64, "row_of_item": I64, "first_item": I64,
            "maxima": F32, "sums": F32, "means": F32, "scale": "fp32", "out": BF16}
rows_of = {"rows": BF16, "parts": F32, "sums": BF16, "weight": BF16, "out": BF16, "eps": "fp32",
           "q_weight": BF16, "k_weight": BF16, "cos": F32, "sin": F32, "slots": I64, "q": BF16,
           "key_scales": F32, "value_scales": F32, "bias": F32, "ids": I32, "weights": F32}
kernels = [
    (grouped.group_pairs, {"slots": I32, **tiles}, {"ROWS": 16, "CHUNK": 1024, "SLOTS": 256}),
    (grouped.add_pairs, {"rows": BF16, "first_of_row": I64, "out": F32}, {"PAIRS": 8, "C": 512}),
    (rows.norm_rows, rows_of, {"PARTS": 6, "NORM": True, "C": 4096}),
    *((rows.split_heads, {**rows_of, "keys": held, "values": held},
       {"CODED": held == I8, "PARTS": 3, "HAS_NORM": True, "P": 128, "Q": 8192, "KV": 1024})
      for held in (BF16, I8)),
    (rows.choose, rows_of, {"PARTS": 12, "HAS_BIAS": True, "K": 8, "E": 256}),
    (linear._add_segments, {"parts": F32, "out": BF16}, {"PARTS": 3, "C": 512}),
    (paged.add_spans, attended, {"P": 128, "APART": 5}),
    *((kernel, {**attended, "keys": held, "values": held},
       {"CODED": held == I8, "BLOCK": 16, **shape})
      for held in (BF16, I8)
      for kernel, shape in ((paged.decode_spans, {"HEADS": 6, "M": 16, "P": 128}),
                            (paged.tile_spans, {"HEADS": 6, "M": 32, "P": 128}),
                            (paged.attend_chunk, {"HEADS": 6, "M": 32, "P": 128}))),
    (linear._linear, {"rows": BF16, "codes": BF16, "scales": BF16, "out": F32},
     {"FORMAT": 4, "WIDTH": 384, "EVEN": True, "B": 32, "ROWS": 8, "SEGMENT": 2, "APART": True}),
]
stored = {"value_scales": F32, "words": I32, "scales": "*i16", "refused": I32}
kernels += [
    (packing.pack_groups, {"values": values, **stored},
     {"CODES": coded, "SCALED": coded, "BLOCK_ROWS": 128, "BLOCK_COLS": 128, "SHARED": shared})
    for values, coded, shared in (("*u8", True, 32), (BF16, False, 128))
]
kernels += [
    (linear._linear, {"rows": BF16, "codes": I32, "scales": F32, "out": F32},
     {"FORMAT": 5, "WIDTH": 32, "EVEN": True, "B": 32, "ROWS": 8, "SEGMENT": 2, "APART": True})
]
for number, (codes, scales, width) in CODES.items():
    held = {"rows": BF16, "codes": codes, "scales": scales, "weights": F32, "out": BF16,
            "row_of_pair": I32, **tiles}
    shape = {"FORMAT": number, "WIDTH": width, "EVEN": True, "B": 32, "ROWS": 16,
             "GROUPED": True, "PAIRS_PER_ROW": 8,
             "SEGMENT": 8, "APART": True}
    kernels += [(kernel, held, shape) for kernel in (grouped.gate_up, grouped.down, linear._linear)]

found = {}
for kernel, types, constants in kernels:
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32")
        for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    packs = kernel is packing.pack_groups
    made = triton.compile(source, target=target, options={
        "num_warps": 8 if packs else 2, "num_stages": 3, "enable_fp_fusion": not packs
    })
    kinds = [str(constants[key]) for key in ("FORMAT", "SHARED", "CODED") if key in constants]
    name = " ".join([kernel.__name__, *kinds])
    found[name] = len(made.asm["cubin"])
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kernel_compiles_for_every_architecture(tmp_path: Path) -> None:
    script = tmp_path / "compile_kernels.py"
    script.write_text(COMPILE)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {
        "TRITON_CACHE_DIR": str(tmp_path),
        "DISABLE_PTXAS_OPT": "1",  # what it would optimise is valid before, too
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }

    def compile_for(architecture: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(architecture)]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
        )

    with ThreadPoolExecutor(2) as threads:
        for done in threads.map(compile_for, ARCHITECTURES):
            assert done.returncode == 0, done.stderr[-3000:]
            sizes = json.loads(done.stdout.splitlines()[-1])
            assert len(sizes) == 16 + 2 + 3 * 4
            assert all(sizes.values())
