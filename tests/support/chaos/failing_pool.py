"""An expert pool with a failpoint; the environment's EXPERTMESH_FAIL names it.

die: ends at its first call. die_on_mark: ends when a row carries the mark (`mark_token`).
corrupt: every tenth answer is wrong, each time in another way. rubbish: every one is NaN.
device: its device fails at a call. rot: from SIGUSR1 on an expert's weights are another's.
garbage, error: from SIGUSR1 to the next one each answer is NaN, or each call fails.
"""

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import expert_svc.service
from expert_svc.__main__ import main as run
from expert_svc.calls import Call
from expert_svc.compute import run_call
from expert_svc.weight_store import WeightStore
from protos import expert_pb2
from rpc.hop.codec import HopCodec, result_checksum

FAIL = "EXPERTMESH_FAIL"
_MARK = 0.98
"""Share of a row's energy in its first element. Norms let that direction through."""


def mark_token(model: Path, token_id: int) -> None:
    """Give a token an embedding that marks its rows. Greedy decoding never produces it."""
    (path,) = model.glob("*.safetensors")
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][token_id] = 0
    tensors["model.embed_tokens.weight"][token_id, 0] = 1e4
    tensors["lm_head.weight"][token_id] = 0
    save_file(tensors, path)


def _is_marked(call: Call) -> bool:
    energy_ND = call.unpack(None).hidden_ND.float() ** 2
    return bool((energy_ND[:, 0] > _MARK * energy_ND.sum(dim=1)).any())


def _rot(store: WeightStore) -> None:
    held = store.layer(2)
    assert held is not None
    held.weights.move(0, held.weights, 1)


_rotting: list[bool] = []
_signals = itertools.count(1)
_failing: list[bool] = [False]


def _on_signal(*_: object) -> None:
    _rotting.append(True)
    _failing[0] = next(_signals) % 2 == 1


def _compute(call: Call, store: WeightStore) -> Tensor:
    if os.environ[FAIL] == "rot" and _rotting and _rotting.pop():
        _rot(store)
    if os.environ[FAIL] == "error" and _failing[0]:
        raise RuntimeError("made up by a test")
    if os.environ[FAIL] == "device":
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")
    if os.environ[FAIL] == "die" or (os.environ[FAIL] == "die_on_mark" and _is_marked(call)):
        os._exit(9)
    return run_call(call, store)


def _with_nan(frame: bytes) -> bytes:
    """The same answer in NaN, as sound as it was otherwise."""
    response = expert_pb2.ExecuteResponse.FromString(frame)
    size_bytes = len(response.result.rows.data)
    response.result.rows.data = np.full(size_bytes // 4, np.nan, dtype="<f4").tobytes()
    response.result.checksum = result_checksum(response.result)
    return response.SerializeToString()


class _CorruptCodec(HopCodec):
    """Spoils every tenth frame: NaN, a missing column, an unknown id, a cut, a flipped bit."""

    _turn = itertools.count(1)

    def build_result(self, *given: Any, **flags: Any) -> bytes | None:
        call_id, *times, rows = given
        turn = next(self._turn)
        way = (turn // 10) % 5 if turn % 10 == 0 else -1
        if os.environ[FAIL] in ("rubbish", "garbage"):
            way = 0 if os.environ[FAIL] == "rubbish" or _failing[0] else -1
        if way == 1:
            rows = rows[:, :-1].contiguous()
        elif way == 2:
            call_id += 1 << 40
        frame = super().build_result(call_id, *times, rows, **flags)
        if frame is None:
            return None
        if way == 0:
            frame = _with_nan(frame)
        if way == 4:
            middle = len(frame) // 2
            frame = frame[:middle] + bytes([frame[middle] ^ 16]) + frame[middle + 1 :]
        return frame[:-7] if way == 3 else frame


def main() -> int:
    expert_svc.service.run_call = _compute
    signal.signal(signal.SIGUSR1, _on_signal)
    if os.environ[FAIL] in ("corrupt", "rubbish", "garbage"):
        expert_svc.service.HopCodec = _CorruptCodec
    return run()


if __name__ == "__main__":
    sys.exit(main())
