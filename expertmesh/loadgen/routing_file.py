"""How is exact routing stored? As safetensors, whose sizes can be checked before they are used.

- `expert_ids` I32 [rows, layers, K]: the experts of each row in each layer, step after step;
- `step_rows` I32 [steps]: the number of rows of each step;
- `is_decode` U8 [steps]: 1 if all rows of the step were generated tokens, not prompt tokens.
"""

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from protos import attention_pb2

SUFFIX = ".safetensors"
NAMES = ("expert_ids", "step_rows", "is_decode")
ID_BYTES = 4


def write_routing(
    path: Path,
    steps: Sequence[attention_pb2.RecordRoutingResponse],
    *,
    num_layers: int,
    checkpoint_id: str,
) -> None:
    """Raises ValueError if a step is malformed, OSError if the file cannot be written."""
    rows = [step.num_rows for step in steps]
    size_bytes = sum(len(step.expert_ids) for step in steps)
    row_bytes = size_bytes // max(1, sum(rows))
    top_k = row_bytes // (num_layers * ID_BYTES)
    if not top_k or any(
        len(step.expert_ids) != step.num_rows * num_layers * top_k * ID_BYTES for step in steps
    ):
        raise ValueError("the attention service sent steps of unequal shape")
    shapes = {
        "expert_ids": ("I32", [sum(rows), num_layers, top_k], size_bytes),
        "step_rows": ("I32", [len(rows)], 4 * len(rows)),
        "is_decode": ("U8", [len(rows)], len(rows)),
    }
    header: dict[str, object] = {"__metadata__": {"checkpoint_id": checkpoint_id}}
    position = 0
    for name in NAMES:
        dtype, shape, length = shapes[name]
        offsets = [position, position + length]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        position += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    unfinished = path.with_name(path.name + ".new")
    with unfinished.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for step in steps:
            file.write(step.expert_ids)
        file.write(struct.pack(f"<{len(rows)}i", *rows))
        file.write(bytes(step.is_decode for step in steps))
    os.replace(unfinished, path)
