"""`bench/mesh/hop.py` prints every figure, with and without mTLS. The figures are not judged."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.places import ROOT

pytestmark = pytest.mark.slow
FIGURES = ("echo_p50_us", "tcp_p50_us", "execute_p50_us", "compute_p50_us", "ratio")


@pytest.mark.parametrize("flags", [[], ["--tls"]], ids=["plain", "mTLS"])
def test_the_hop_is_measured_beside_its_references(flags: list[str]):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "mesh" / "hop.py"), "--rounds", "10", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    told = json.loads(ended.stdout.strip().splitlines()[-1])
    for measured in (told, told["rows_256"]):
        assert all(measured[name] > 0 for name in FIGURES)
    assert told["rows_256"]["rows"] == 256
    assert told["tls"] is bool(flags)
