"""What a pool measures of itself, in every layout of the weights."""

import pytest
import torch

from expert_svc import speed
from expert_svc.config import ExpertConfig
from moe_model.backends.choice import choose_backend
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY


@pytest.mark.parametrize(
    ("weight_format", "dtype"),
    [
        ("f32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp8", torch.bfloat16),
        ("int8", torch.bfloat16),
        ("int4", torch.bfloat16),
    ],
)
def test_every_format_is_measured_within_its_time(weight_format, dtype, monkeypatch):
    monkeypatch.setattr(speed, "MEASURE_S", 0.01)
    measured = speed.measure_experts_per_s(parse_config(TINY), weight_format, choose_backend(dtype))
    assert 1 < measured < 1e9


def test_a_starved_start_measures_on_until_enough_calls_were_seen(monkeypatch):
    now_s, calls = 0.0, 0

    def clock():
        nonlocal now_s, calls
        calls += 1
        now_s += 0.02 if calls < 30 else 1e-4  # other processes may have the cores for a while
        return now_s

    monkeypatch.setattr(speed.time, "perf_counter", clock)
    config = parse_config(TINY)
    measured = speed.measure_experts_per_s(config, "f32", choose_backend(torch.float32))
    assert measured == pytest.approx(config.top_k / 1e-4, rel=0.01)


def test_every_expert_is_measured_in_memory_of_its_own(monkeypatch):
    """If experts shared memory it would stay in a cache and measure several times too fast."""
    monkeypatch.setattr(speed, "MEASURE_S", 0.01)
    backend, rooms = choose_backend(torch.bfloat16), []
    make_room = backend.room_for_experts

    def remember(*given):
        rooms.append(make_room(*given))
        return rooms[-1]

    monkeypatch.setattr(backend, "room_for_experts", remember)
    speed.measure_experts_per_s(parse_config(TINY), "int4", backend, most_experts=4)
    matrices = [matrix for slot in range(4) for matrix in rooms[0].packed.get_packed(slot)]
    assert len({matrix.address for matrix in matrices}) == 8


@pytest.mark.parametrize("wrong", [-1.0, 1e-9, 1e12])
def test_the_flag_says_what_is_allowed(wrong):
    with pytest.raises(ValueError, match="--experts-per-s: allowed are 0 and"):
        ExpertConfig(experts_per_s=wrong)
