"""How far are packed weights, and products with them, from the originals?

Relative errors (root mean square) of normally distributed weights of M2's width, in float and as an
FP8 checkpoint stores them, against float64: of the weights as the kernel sees them, of products
with bfloat16 rows, and of those products against the packed weights' own numbers (what the rows'
coding and the sums add). A table on standard error; the last line on standard output is JSON.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.formats import FORMATS
from moe_model.kernels.cpu.packed import unpack
from moe_model.kernels.cpu.packing import pack_linear
from moe_model.maths.linear import linear
from moe_model.quant import StoredMatrix, quantise

OUTPUTS, INPUTS, ROWS = 2048, 3072, 64


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def main() -> None:
    torch.manual_seed(0)
    weight = torch.randn(OUTPUTS, INPUTS) / INPUTS**0.5
    codes, scales = quantise(weight)
    block = (128, 128)
    sources = {
        "float": StoredMatrix(values=weight, scales=None, block=block, where="float"),
        "fp8": StoredMatrix(values=codes, scales=scales, block=block, where="fp8"),
    }
    rows = torch.randn(ROWS, INPUTS).bfloat16()
    here = library.need().format_ids
    found = []
    print("source format   bytes  weights  product  coding", file=sys.stderr)
    for source, stored in sources.items():
        exact = stored.to(torch.float32).double()
        for format, weights in FORMATS.items():
            if format == "f32" or weights.id not in here:
                continue
            held = pack_linear([stored], format)
            seen, product = unpack(held).double(), linear(rows, held, torch.float32)
            result = {
                "source": source,
                "format": format,
                "bytes_per_weight": held.data.numel() / weight.numel(),
                "weights": relative(seen, exact),
                "product": relative(product, rows.double() @ exact.T),
                "coding": relative(product, rows.double() @ seen.T),
            }
            found.append(result)
            numbers = [f"{result[key]:8.3%}" for key in ("weights", "product", "coding")]
            size = f"{result['bytes_per_weight']:.3f}"
            print(f"{source:6} {format:9} {size} {''.join(numbers)}", file=sys.stderr)
    print(json.dumps({"bench": "format_error", "errors": found}))


if __name__ == "__main__":
    main()
