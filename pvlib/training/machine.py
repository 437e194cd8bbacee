"""Settings of the process that make training on a CPU quicker."""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def prepare(threads: int | None = None) -> None:
    """Set the number of threads, and let glibc keep freed memory for the next step.

    Without the latter every large activation is mapped and unmapped anew, and touching fresh pages costs
    up to half of a step. All threads take from one arena, for the others have no room for large activations.
    Where the C library is another one, memory stays as it is: slower, same results.
    """
    if threads:
        torch.set_num_threads(threads)
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)
        library.mallopt(_M_ARENA_MAX, 1)
