"""How many threads compute, on a machine that may have other work to do.

OpenMP's threads spin while they wait for each other. Where other processes need the same cores, that can cost many
times what the computation costs, so spinning is limited, and by default as many threads are used as cores are free.
The number of threads changes the order in which floats are added, and so the last bits of the results: it is chosen
once for a run and recorded.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewshot_cli.progress import Reporter

SPIN_COUNT = "2000"
"""Loops that a waiting thread spins before it sleeps. Measured: an idle machine loses little, a busy one no longer
collapses."""
MEASURED_SECONDS = 0.2
"""How long the load is measured."""


def limit_spinning() -> None:
    """Limit how long OpenMP's threads spin.

    Has an effect only before torch is imported; does nothing if any variable OMP_… or GOMP_… is set.
    """
    given = any(name.startswith(("OMP_", "GOMP_")) for name in os.environ)
    if "torch" not in sys.modules and not given:
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT


def choose_threads(threads: int | None, reporter: Reporter, most: int | None = None) -> int:
    """How many threads to compute with.

    Args:
        threads: this many; None: one for each core that is free now, or what OMP_NUM_THREADS says if it is set.
        reporter: says so when free cores are fewer than those of the machine.
        most: how many there are without other processes; None: as many as torch uses by itself.

    Raises:
        ConfigError: `threads` is out of bounds.
    """
    if threads is not None:
        from fewshot_cli.bounds import THREADS  # here, because `import fewshot_cli` imports this module

        return THREADS.check("threads", threads)
    most = most or default_threads()
    if "OMP_NUM_THREADS" in os.environ:
        return most
    free = free_cores()
    chosen = max(1, min(most, round(free)))
    if chosen < most:
        busy = round(len(_cores()) - free)
        cores = "1 core" if busy == 1 else f"{busy} cores"
        reporter.say(f"Using {chosen} of {most} threads: other processes keep {cores} busy (--threads sets it).")
    return chosen


def free_cores() -> float:
    """The cores that this process may use, less what other processes use of them now; takes MEASURED_SECONDS."""
    import psutil

    cores, ourselves = _cores(), psutil.Process()
    ourselves.cpu_percent()  # begins to count
    everyone = psutil.cpu_percent(MEASURED_SECONDS, percpu=True)
    own = ourselves.cpu_percent()
    used = sum(percent for core, percent in enumerate(everyone) if core in cores)
    return len(cores) - max(0.0, used - own) / 100


def usable_cores() -> int:
    """How many cores this process may use, or what OMP_NUM_THREADS says if it is a number; without torch."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else len(_cores())


@lru_cache
def default_threads() -> int:
    """How many threads torch uses by itself, before `use_threads` changes it."""
    import torch

    return torch.get_num_threads()


def use_threads(threads: int) -> None:
    """Compute with this many threads from now on."""
    import torch

    default_threads()  # remembered, because torch no longer knows it afterwards
    torch.set_num_threads(threads)


def _cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
