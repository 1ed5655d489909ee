"""Running a grid: in this process or in several. What is done is never done again; what fails stops nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from fewshot_cli.detectors.registry import get_spec
from fewshot_cli.errors import ConfigError, FsodError
from fewshot_cli.files import make_folder, write_json
from fewshot_cli.policies import select
from fewshot_cli.progress import Reporter, SilentReporter, Task
from fewshot_cli.runs.folder import RESULT, Run
from fewshot_cli.sources.fetch import fetch
from fewshot_cli.sweeps.grid import Cell, Group, Setup, SweepConfig

POLL = 2.0
"""Seconds between two looks at what the other processes have finished."""


class Failure(NamedTuple):
    """A cell that could not be done."""

    cell: Cell
    message: str
    exit_code: int


class Sweep:
    """The folder of a sweep: its configuration, data sets, and a run for every cell."""

    def __init__(self, folder: Path, config: SweepConfig) -> None:
        self.folder = folder
        self.config = config

    def run(self, cell: Cell) -> Run:
        return Run(self.folder / "runs" / cell.run_name)

    def data(self, group: Group) -> Path:
        return self.folder / "data" / group.data_name

    def missing(self) -> list[Cell]:
        """Cells that are not finished."""
        # One look at each folder's name rather than a Run for each cell: this is asked every few seconds.
        done = {path.parent.name for path in self.folder.glob(f"runs/*/{RESULT}")}
        return [cell for cell in self.config.cells() if cell.run_name not in done]

    def results(self) -> Iterator[tuple[Cell, dict[str, Any]]]:
        """Every finished cell with the content of its result.json."""
        for cell in self.config.cells():
            run = self.run(cell)
            if run.finished:
                yield cell, run.read_result()


def remaining_seconds(sweep: Sweep) -> float | None:
    """How long the missing cells take in one process, judged by the finished ones; None before any is finished."""
    seconds: dict[Setup, list[float]] = {}
    for cell, result in sweep.results():
        seconds.setdefault(cell.setup, []).append(result["seconds"]["total"])
    if not seconds:
        return None
    overall = statistics.median(value for values in seconds.values() for value in values)
    return sum(statistics.median(seconds.get(cell.setup, [overall])) for cell in sweep.missing())


def open_sweep(folder: Path, config: SweepConfig) -> Sweep:
    """Begin a sweep in a folder, or go on with the one that is there.

    More seeds, classes or budgets may be asked of a sweep than before; what would change cells that are done may not.

    Raises:
        ConfigError: the folder holds a sweep with other fixed options, or no sweep.
        StorageError: the disk refuses.
    """
    file = folder / "sweep.json"
    fixed = ("source", "test_source", "test_images", "weights", "eval_every", "options")
    drawn = ("split", "test_split", "allow", "smallest_box", "skip_invalid")
    asked = json.loads(json.dumps(config.to_json()))
    if file.exists():
        try:
            before = json.loads(file.read_text("utf-8"))
            changed = [f"{name} {before[name]} (now {asked[name]})" for name in fixed if before[name] != asked[name]]
            old, new = before["fetch_options"], asked["fetch_options"]
            changed += [f"{key} {old.get(key)} (now {new.get(key)})" for key in drawn if old.get(key) != new.get(key)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file} cannot be read: {error}", hint="Choose another --out.") from error
        if changed:
            raise ConfigError(f"{folder} holds a sweep with {', '.join(changed)}", hint="Choose another --out.")
    make_folder(folder / "runs")
    write_json(file, asked)
    return Sweep(folder, config)


def fetch_data(sweep: Sweep, reporter: Reporter) -> list[Failure]:
    """Draw every data set that is not there yet; a class that cannot be drawn fails its own cells alone."""
    failures: list[Failure] = []
    groups = {group.data_name: group for group in sweep.config.groups() if not sweep.data(group).exists()}
    with reporter.progress("Data sets", len(groups)) as task:
        for group in groups.values():
            try:
                fetch(sweep.config.fetch_request(group, sweep.folder / "data"))
            except FsodError as error:
                failures += [Failure(cell, error.message, error.exit_code) for cell in _with_data_of(sweep, group)]
            task.advance()
    return failures


def _with_data_of(sweep: Sweep, group: Group) -> list[Cell]:
    return [cell for cell in sweep.config.cells() if cell.group.data_name == group.data_name]


def run_sweep(
    sweep: Sweep,
    *,
    engine: str = "local",
    address: str | None = None,
    jobs: int = 1,
    share: bool = True,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> list[Failure]:
    """Run every cell that is not finished.

    Args:
        engine: `local`, or `ray`, whose cluster is at `address`.
        jobs: processes of the local engine; each takes whole groups, so that it can share features within them.
        share: cells with the same shots, detector and cut use the same cached features.
        device: as in FinetuneConfig, for every cell.

    Returns:
        the cells that could not be done; they are tried again the next time.
    """
    reporter = reporter or SilentReporter()
    failures = fetch_data(sweep, reporter)
    total = sum(1 for _ in sweep.config.cells())
    groups = [group for group in sweep.config.groups() if sweep.data(group).exists() and unfinished(sweep, group)]
    with reporter.progress("Cells", total, total - len(sweep.missing())) as task:
        if engine == "ray":
            from fewshot_cli.sweeps.engines.ray import run_on_ray

            failures += run_on_ray(sweep, groups, address=address, share=share, device=device, task=task)
        elif jobs == 1:
            for group in groups:
                failures += run_group(sweep, group, share=share, device=device, task=task)
        else:
            failures += _run_in_processes(sweep, groups, jobs, share, device, task)
    return failures


def unfinished(sweep: Sweep, group: Group) -> list[Cell]:
    """Cells of a group that are still to be done."""
    return [cell for cell in sweep.config.cells_of(group) if not sweep.run(cell).finished]


def run_group(sweep: Sweep, group: Group, *, share: bool, device: str, task: Task | None = None) -> list[Failure]:
    """Run the unfinished cells of a group, those with the same cut one after the other."""
    from fewshot_cli.training.features import FeatureStore

    failures: list[Failure] = []
    store = FeatureStore() if share else None
    for cell in sorted(unfinished(sweep, group), key=by_cut):
        failure = _run_cell(sweep, cell, store, device)
        failures += [failure] if failure else []
        if task:
            task.update(str(cell))
            task.advance()
    return failures


def by_cut(cell: Cell) -> tuple[int, bool]:
    """The first head layer that trains: cells with the same one start from the same activations."""
    policy, budget = cell.setup
    spec = get_spec(cell.group.detector)
    selection = select(policy, budget, spec.head_depth, stages=spec.backbone_stages)
    return min(selection.head_layers, default=99), selection.neck


def _run_cell(sweep: Sweep, cell: Cell, store: Any, device: str) -> Failure | None:
    """One fine-tune; goes on from the state that a killed one left."""
    from fewshot_cli.training.finetune import finetune

    run = sweep.run(cell)
    try:
        make_folder(run.folder)
        data = str(sweep.data(cell.group).resolve())
        config = sweep.config.finetune_options(cell, data=data, device=device)
        run.write_config(config)
        finetune(config, run, features=store)
    except FsodError as error:
        return Failure(cell, error.message, error.exit_code)
    except Exception as error:  # a bug in one cell must not cost the night's others
        return Failure(cell, f"{type(error).__name__}: {error}", FsodError.exit_code)
    return None


# --- several processes ---


def _run_in_processes(
    sweep: Sweep, groups: list[Group], jobs: int, share: bool, device: str, task: Task
) -> list[Failure]:
    failures: list[Failure] = []
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare_worker, initargs=(threads,)) as pool:
        waiting = {pool.submit(run_group, sweep, group, share=share, device=device): group for group in groups}
        left = len(sweep.missing())
        try:
            while waiting:
                done, _ = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
                failures += [failure for future in done for failure in _failures_of(sweep, future, waiting.pop(future))]
                before, left = left, len(sweep.missing())
                task.advance(before - left)
        except BaseException:
            # Or the pool would wait until all that was submitted is done. The next call goes on from what they saved.
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
    return failures


def _failures_of(sweep: Sweep, future: Future[list[Failure]], group: Group) -> list[Failure]:
    try:
        return future.result()
    except BrokenProcessPool:
        reason = "its process was killed, perhaps for want of memory: fewer --jobs take less"
        return [Failure(cell, reason, FsodError.exit_code) for cell in unfinished(sweep, group)]


def _prepare_worker(threads: int) -> None:
    """Several processes with all cores each would only wait for each other."""
    import torch

    torch.set_num_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this a worker whose sweep was killed would go on, beside the sweep that takes over."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
