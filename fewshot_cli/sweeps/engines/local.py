"""This machine: in the calling process, or in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from threading import Thread
from typing import Annotated, Any

from fewshot_cli.bounds import JOBS
from fewshot_cli.errors import UsageError
from fewshot_cli.settings import Option, validate
from fewshot_cli.sweeps.engines.contract import Done, Outcomes, Work, as_they_come
from fewshot_cli.threads import use_threads


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """One item after the other in the calling process, or `jobs` at a time in processes of their own."""

    jobs: Annotated[int, Option("Processes at a time, on this machine.", within=JOBS)] = 1

    def __post_init__(self) -> None:
        validate(self, error=UsageError)

    def run(self, work: Work, items: Sequence[Any]) -> Outcomes:
        if self.jobs == 1:
            return (Done(item, work(item)) for item in items)
        return _in_processes(work, items, self.jobs)


def _in_processes(work: Work, items: Sequence[Any], jobs: int) -> Outcomes:
    import torch

    threads = max(1, torch.get_num_threads() // jobs)
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare_worker, initargs=(threads,)) as pool:
        try:
            futures = {pool.submit(work, item): item for item in items}
            yield from as_they_come(futures, BrokenProcessPool, _killed)
        except BaseException:
            # Otherwise the pool would wait until everything submitted is done.
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.terminate()
            raise


def _killed(_: Exception) -> str:
    return "a worker process was killed, perhaps for lack of memory: use fewer --jobs"


def _prepare_worker(threads: int) -> None:
    """Compute with this worker's share of the threads, and end with the parent."""
    use_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this a worker whose sweep was killed would go on, beside the sweep that is started next."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
