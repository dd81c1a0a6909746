"""Limits of containers are part of what a machine offers."""

from pathlib import Path

import psutil

from expertmesh.cluster import machine
from rpc.process.memory import available_memory_bytes


def test_a_version_2_memory_limit_cuts_what_is_available(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("700000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 100000000\n")
    assert available_memory_bytes(tmp_path) == 400_000_000


def test_a_version_1_memory_limit_cuts_what_is_available(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text("500000000")
    (folder / "memory.usage_in_bytes").write_text("600000000")
    assert available_memory_bytes(tmp_path) == 0


def test_without_a_limit_the_machine_decides(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1\n")
    available = available_memory_bytes(tmp_path)
    assert 0 < available <= psutil.virtual_memory().total


def test_a_cpu_quota_cuts_the_cores_and_never_to_zero(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert machine.usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.usable_cores(tmp_path) >= 1
