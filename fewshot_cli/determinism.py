"""Computing the same bits twice.

What draws at random is seeded in any case, and on a CPU the same number of threads gives the same bits. What is left
are operations that add in another order each time, most of them on GPUs: torch has other versions of nearly all of
them, which are slower.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

WORKSPACE = ":4096:8"
"""What NVIDIA asks for: cuBLAS gives the same bits if each of its streams has memory of its own."""


@contextmanager
def computing_deterministically(wanted: bool = True) -> Iterator[None]:
    """For as long as the context lasts, torch gives the same bits in every run; afterwards it is set as before.

    Torch warns of an operation that has no such version.

    Args:
        wanted: false: nothing is changed.
    """
    if not wanted:
        yield
        return
    import torch

    # Read when cuBLAS is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    enabled, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        torch.backends.cudnn.benchmark = benchmark
