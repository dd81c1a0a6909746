"""Threads that cannot be made, or no rows at all, are an error or a result, never a crash."""

import subprocess
import sys

import pytest

from moe_model.kernels.cpu import library
from tests.support.moe_model.kernel_cases import needs_kernels

pytestmark = needs_kernels

LIMITED = """
import os, resource, threading
import torch
from moe_model.backends.choice import choose_backend
from moe_model.maths.linear import linear
from tests.support.moe_model.float_packing import pack, put
set_threads = choose_backend(torch.bfloat16).set_threads
set_threads(1)
size_bytes = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (size_bytes + (200 << 20),) * 2)
for _ in range(3):
    try:
        set_threads(512)
    except ValueError as error:
        print(error)
weight = pack(torch.eye(64), "bf16")
rows = torch.arange(5 * 64).reshape(5, 64).bfloat16()
assert torch.equal(linear(rows, weight, torch.float32), rows.float())
print(set_threads(2))
assert torch.equal(linear(rows, weight, torch.float32), rows.float())
"""

FIRST_CALLS = """
import sys
import torch
from moe_model.kernels.cpu.ffn import KernelExperts, expert_rows, expert_sums, routed_sums
from moe_model.maths.linear import linear
from tests.support.moe_model.float_packing import pack, put
from moe_model.kernels.cpu.rows import NativeRows
held = KernelExperts(2, 64, 32)
for slot in range(2):
    put(held, slot, torch.ones(64, 64).bfloat16(), torch.ones(64, 32).bfloat16())
none = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0)
some, empty = torch.ones(3, 64).bfloat16(), torch.ones(0, 64).bfloat16()
if sys.argv[1] == "sums":
    assert torch.equal(expert_sums(some, *none, held), torch.zeros(3, 64))
elif sys.argv[1] == "sums of no row":
    assert expert_sums(empty, *none, held).shape == (0, 64)
elif sys.argv[1] == "rows":
    assert expert_rows(some, *none, held).shape == (0, 64)
elif sys.argv[1] == "routed":
    ids, weights = torch.empty(0, 2, dtype=torch.int32), torch.empty(0, 2)
    routed_sums(empty, ids, weights, held, torch.empty(0, 64))
elif sys.argv[1] == "linear":
    assert linear(empty, pack(torch.eye(64), "bf16")).shape == (0, 64)
elif sys.argv[1] == "choice":
    ids, weights = NativeRows().choose_experts(torch.empty(0, 4), None, 2)
    assert ids.shape == weights.shape == (0, 2)
else:
    sys.exit("no such call")
"""


OTHER_CALLS = ("sums of no row", "rows", "routed", "linear", "choice")


@pytest.mark.parametrize(
    "what", ["sums", *(pytest.param(what, marks=pytest.mark.slow) for what in OTHER_CALLS)]
)
def test_nothing_to_compute_needs_no_memory_of_former_calls(what: str):
    """In a process's first call the scratch memory is null, which once counted as out of memory."""
    ended = subprocess.run(
        [sys.executable, "-c", FIRST_CALLS, what],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_more_threads_than_there_is_room_for_are_refused_and_computing_goes_on():
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    *refused, threads = ended.stdout.splitlines()
    assert len(refused) == 3
    assert all(
        line.startswith("--threads 512: only ") and "of 511 threads could be started" in line
        for line in refused
    ), refused
    assert threads == "2"


def test_a_first_pool_that_cannot_be_started_leaves_the_caller_to_compute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A limit below the number of cores does not matter to callers that ask for fewer threads."""

    def refuse(self: library.Library, num_threads: int) -> None:
        raise RuntimeError("only 0 of 63 threads could be started")

    monkeypatch.setattr(library.Library, "set_threads", refuse)
    library.load.cache_clear()
    try:
        assert library.load() is not None
        assert "computing with one thread" in caplog.text
    finally:
        library.load.cache_clear()


@pytest.mark.parametrize("num_threads", [0, 1025, 2**40])
def test_an_impossible_number_of_threads_is_refused(num_threads: int):
    with pytest.raises(ValueError, match="1 to 1024"):
        library.need().set_threads(num_threads)
