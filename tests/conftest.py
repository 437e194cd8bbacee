"""What every test shares: two threads, a plotting backend without a window, quiet third parties."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["MPLBACKEND"] = "Agg"

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _same_threads_after_each_test():
    """Some packages set torch's threads on import; a test must not slow down the next."""
    yield
    torch.set_num_threads(2)
