"""Exact routing survives the file, and a bad file is refused before it is used."""

import json
import struct
from pathlib import Path

import pytest
import torch

from expertmesh.loadgen.routing import Drawn, Recorded, read_steps
from expertmesh.loadgen.routing_file import write_routing
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from protos import attention_pb2

CONFIG = parse_config(TINY)  # 3 layers of 8 experts, 2 for each token
ROWS = (5, 1, 1, 3)


def step(num_rows: int, seed: int) -> tuple[torch.Tensor, attention_pb2.RecordRoutingResponse]:
    generator = torch.Generator().manual_seed(seed)
    ids_TLK = torch.rand(num_rows, 3, 8, generator=generator).topk(2).indices.sort().values
    message = attention_pb2.RecordRoutingResponse(
        is_decode=num_rows == 1,
        num_rows=num_rows,
        expert_ids=ids_TLK.to(torch.int32).numpy().tobytes(),
    )
    return ids_TLK, message


def written(folder: Path) -> Path:
    path = folder / "load.safetensors"
    messages = [step(rows, seed)[1] for seed, rows in enumerate(ROWS)]
    write_routing(path, messages, num_layers=3, checkpoint_id="sha256:one")
    return path


def test_steps_are_read_as_they_were_written_and_shared_out_in_turn(tmp_path):
    read = read_steps(written(tmp_path), CONFIG)
    for seed, (found, rows) in enumerate(zip(read.recorded, ROWS, strict=True)):
        assert found.is_decode == (rows == 1)
        assert torch.equal(found.ids_LTK.transpose(0, 1), step(rows, seed)[0])
    streams = [list(read.steps(number, 3)) for number in range(3)]
    assert [len(steps) for steps in streams] == [2, 1, 1]
    assert Recorded(recorded=read.recorded[::3]).recorded == streams[0]


def test_drawn_steps_are_the_same_for_the_same_seed():
    drawn = Drawn(tokens=[[9, 1, 5, 5]] * 3, num_steps=2, num_rows=4, top_k=2, seed=7)
    first, again = list(drawn.steps(1, 2)), list(drawn.steps(1, 2))
    assert [tuple(one.ids_LTK.shape) for one in first] == [(3, 4, 2)] * 2
    assert all(torch.equal(a.ids_LTK, b.ids_LTK) for a, b in zip(first, again, strict=True))


def changed(path: Path, tensor: str, values: bytes) -> None:
    """Overwrite the beginning of a tensor."""
    raw = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    start = 8 + length + json.loads(raw[8 : 8 + length])[tensor]["data_offsets"][0]
    raw[start : start + len(values)] = values
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("tensor", "values", "said"),
    [
        ("expert_ids", struct.pack("<i", 8), "expert_ids: 0 to 7"),
        ("expert_ids", struct.pack("<i", -1), "expert_ids: 0 to 7"),
        ("expert_ids", struct.pack("<2i", 3, 3), "names an expert of a layer twice"),
        ("step_rows", struct.pack("<i", 6), "do not agree"),
        ("step_rows", struct.pack("<i", -5), "step_rows: 1 to"),
        ("step_rows", struct.pack("<i", 2**31 - 1), "step_rows: 1 to"),
    ],
)
def test_a_file_that_lies_is_refused(tmp_path, tensor, values, said):
    path = written(tmp_path)
    changed(path, tensor, values)
    with pytest.raises(ValueError, match=said):
        read_steps(path, CONFIG)


def test_another_models_recording_and_other_files_are_refused(tmp_path):
    path = written(tmp_path)
    with pytest.raises(ValueError, match="expected steps of 4 layers"):
        read_steps(path, parse_config({**TINY, "num_hidden_layers": 4}))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated"):
        read_steps(path, CONFIG)
    other = tmp_path / "other.safetensors"
    other.write_bytes(struct.pack("<Q", 2) + b"{}")
    with pytest.raises(ValueError, match="not a recording"):
        read_steps(other, CONFIG)
    messages = [step(2, 0)[1], attention_pb2.RecordRoutingResponse(num_rows=9)]
    with pytest.raises(ValueError, match="unequal shape"):
        write_routing(path, messages, num_layers=3, checkpoint_id="")
