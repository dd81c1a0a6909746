"""How fast is this pool? Activated experts per second, with its kernel, threads and memory.

In decode a pool reads each activated expert's weights once. So this number, in which weight
format, kernel and memory bandwidth are combined, is what the router balances by.
"""

import itertools
import time

import torch

from moe_model.backends.backend import Backend
from moe_model.config import ModelConfig
from moe_model.formats import piece_bytes
from moe_model.maths.expert_calls import CallRows
from moe_model.quant import StoredExpert, StoredMatrix, scale_shape

MEASURE_S = 0.2
"""Time to compute; filling the weights takes about as long at real sizes."""
MIN_CALLS = 24
AT_MOST_S = 1.0
"""On busy cores the measurement goes on until MIN_CALLS calls are done, at most this long."""
WEIGHT_BYTES = 256 * 1024 * 1024
"""More than caches keep from one call to the next."""
MAX_MEASURED_EXPERTS = 32
BLOCK = (128, 128)


@torch.inference_mode()
def measure_experts_per_s(
    config: ModelConfig,
    weight_format: str,
    backend: Backend,
    *,
    most_experts: int = MAX_MEASURED_EXPERTS,
) -> float:
    """Activated experts per second for single rows: the best of all calls within `MEASURE_S`, and
    of at least `MIN_CALLS`, since another process may use the cores during some of them.

    `most_experts`: how many experts' weights there is memory for.
    """
    enough = WEIGHT_BYTES // piece_bytes(config, weight_format)
    num_held = max(1, min(enough, most_experts, MAX_MEASURED_EXPERTS))
    num_used = min(config.top_k, num_held)
    held = backend.room_for_experts(num_held, config, weight_format)
    expert = _expert(config)
    for slot in range(num_held):
        held.put(slot, expert)  # not `move`: slots that share memory would stay in a cache
    calls = backend.expert_calls(config, weight_format)
    calls.prepare(held)
    rows = CallRows(
        hidden_ND=torch.ones((1, config.hidden_size), dtype=backend.dtype),
        row_of_pair_M=torch.zeros(num_used, dtype=torch.int64),
        expert_ids_M=torch.arange(num_used),
        weights_M=torch.full((num_used,), 1 / num_used),
    )
    fastest_s, first = float("inf"), 0
    start_s = time.perf_counter()
    for call in itertools.count(1):
        slots_M = torch.arange(first, first + num_used).remainder(num_held).sort().values
        first = (first + num_used) % num_held
        begin_s = time.perf_counter()
        calls.run(held, rows, slots_M.numpy(), per_pair=False)
        now_s = time.perf_counter()
        fastest_s = min(fastest_s, now_s - begin_s)
        if now_s - start_s > (MEASURE_S if call >= MIN_CALLS else AT_MOST_S):
            break
    return num_used / max(fastest_s, 1e-9)


def _expert(config: ModelConfig) -> StoredExpert:
    """An expert with arbitrary weights: the time does not depend on the values."""

    def matrix(rows: int, columns: int) -> StoredMatrix:
        codes = torch.full((rows, columns), 0x38, dtype=torch.uint8)  # 1.0
        return StoredMatrix(
            values=codes.view(torch.float8_e4m3fn),
            scales=torch.full(scale_shape(rows, columns, *BLOCK), 0.01),
            block=BLOCK,
            where="measuring",
        )

    d, f = config.hidden_size, config.expert_size
    return StoredExpert(w1=matrix(f, d), w3=matrix(f, d), w2=matrix(d, f))
