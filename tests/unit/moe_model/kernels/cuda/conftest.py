"""On a CUDA device if there is one, else in Triton's interpreter (tests/conftest.py)."""

import pytest
import torch

pytest.importorskip("triton")


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
