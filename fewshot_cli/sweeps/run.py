"""Running a sweep: fetch the data sets, run what is missing, sum up. A cell that fails stops no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import DataError, FsodError
from fewshot_cli.progress import Reporter, SilentReporter, Task
from fewshot_cli.schemas import Swept, schema_of
from fewshot_cli.sources.fetch import fetch
from fewshot_cli.sweeps.cells import Cell, Group, by_cut
from fewshot_cli.sweeps.config import configure, fetch_request, finetune_config
from fewshot_cli.sweeps.engines import get_engine
from fewshot_cli.sweeps.engines.contract import Engine, Lost
from fewshot_cli.sweeps.folder import SweepFolder, open_sweep
from fewshot_cli.sweeps.summary import Summary, summarize
from fewshot_cli.threads import choose_threads, use_threads
from fewshot_cli.verbs.finetune import run_at

LOOK = 1.0
"""Seconds between two looks at which cells are finished."""


class Failure(NamedTuple):
    """A cell that could not be run, and the exit code of its error."""

    cell: Cell
    message: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep leaves.

    Attributes:
        folder: its folder, with the runs of all cells.
        summaries: a table for each detector and number of shots, over all finished cells.
        failures: cells that could not be run this time; the next call tries them again.
    """

    folder: SweepFolder
    summaries: tuple[Summary, ...]
    failures: tuple[Failure, ...]

    @property
    def path(self) -> Path:
        return self.folder.path

    def to_json(self) -> dict[str, Any]:
        """The folder, the tables and the failures."""
        return {
            "schema": schema_of(Swept),
            "folder": str(self.path),
            "tables": [summary.to_json() for summary in self.summaries],
            "failures": [{**failure._asdict(), "cell": str(failure.cell)} for failure in self.failures],
        }


def sweep(
    classes: str | Sequence[str],
    *,
    source: str,
    out: str | Path = "sweep",
    preset: str | None = None,
    engine: str = "local",
    jobs: int | None = None,
    address: str | None = None,
    share: bool = True,
    device: str = "auto",
    threads: int | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> SweepResult:
    """Fine-tune over a grid of classes, shots, seeds, detectors, policies and budgets.

    A sweep that was stopped continues when it is called again: finished cells are not run again, and a cell that was
    stopped in the middle continues from its saved state.

        result = sweep(["helmet", "bird"], source="miniature", budgets=(2, 3), seeds=3)
        print(result.summaries[0].rows)

    Args:
        classes: one class, or several; each is fine-tuned on its own.
        source: where images come from, as in `fetch`; `{class}` in it stands for the class.
        out: folder of the sweep, new or to be continued.
        preset: `table1`, the paper's grid; `options` take precedence.
        engine: a name in `sweeps.engines.ENGINES`: `local` or `ray`.
        jobs: processes at a time (engine local); default: 1, this process.
        address: of the cluster (engine ray); default: a cluster of this machine's own.
        share: cells with the same shots, detector and cut use the same cached features.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for every cell.
        threads: CPU threads of all processes on this machine together; None: one for each free core.
        reporter: receives progress and remarks.
        options: further fields of SweepConfig: `policies`, `budgets`, `shots`, `seeds`, `detectors`, `weights`, …;
            `options` and `fetch_options` are dictionaries of further options of `finetune` and `fetch`.

    Returns:
        the result; cells that could not be run are listed in its `failures`.

    Raises:
        UsageError: an unknown engine, preset or source, or an option of another engine.
        ConfigError: a grid or an option that cannot work, a folder that holds another sweep, or Ray is not installed.
        ModelError: an unknown detector.
        DataError: a data set without a test set.
        NetworkError: there is no Ray cluster at the address.
        StorageError: the folder cannot be written.
    """
    reporter = reporter or SilentReporter()
    chosen = get_engine(engine, jobs=jobs, address=address)
    folder = open_sweep(Path(out), configure(classes, source=source, preset=preset, **options))
    use_threads(choose_threads(threads, reporter))
    failures = run_missing(folder, chosen, share=share, device=device, reporter=reporter)
    return SweepResult(folder=folder, summaries=tuple(summarize(folder.results())), failures=tuple(failures))


def run_missing(folder: SweepFolder, engine: Engine, *, share: bool, device: str, reporter: Reporter) -> list[Failure]:
    """Run every cell that is not finished; the arguments are those of `sweep`.

    Returns:
        the cells that could not be run.
    """
    failures = fetch_data(folder, reporter)
    groups = [group for group in folder.grid.groups() if folder.data(group).exists() and folder.missing_of(group)]
    _check_test_sets(folder, groups)
    # A whole path, because a worker may have another working directory.
    work = partial(run_group, SweepFolder(folder.path.resolve(), folder.config), share=share, device=device)
    with _progress(folder, reporter), closing(engine.run(work, groups)) as outcomes:
        for outcome in outcomes:
            failures += _lost(folder, outcome) if isinstance(outcome, Lost) else outcome.result
    return failures


def fetch_data(folder: SweepFolder, reporter: Reporter) -> list[Failure]:
    """Draw every data set that is not there yet; for a class that cannot be drawn, its own cells fail alone."""
    failures: list[Failure] = []
    groups = {group.data_name: group for group in folder.grid.groups() if not folder.data(group).exists()}
    with reporter.progress("Data sets", len(groups)) as task:
        for group in groups.values():
            try:
                fetch(fetch_request(folder.config, group, folder.data_root))
            except FsodError as error:
                cells = [cell for cell in folder.grid.cells() if cell.group.data_name == group.data_name]
                failures += [Failure(cell, error.message, error.exit_code) for cell in cells]
            task.advance()
    return failures


def run_group(folder: SweepFolder, group: Group, *, share: bool, device: str) -> list[Failure]:
    """Run the unfinished cells of a group, those with the same cut one after the other, so that they share features."""
    from fewshot_cli.training.features import FeatureStore

    store = FeatureStore() if share else None
    cells = sorted(folder.missing_of(group), key=by_cut)
    return [failure for cell in cells if (failure := run_cell(folder, cell, store, device))]


def run_cell(folder: SweepFolder, cell: Cell, features: Any, device: str) -> Failure | None:
    """Run one fine-tune, or continue it; returns why it could not be done, if so."""
    import torch

    try:
        data = str(folder.data(cell.group).resolve())
        config = finetune_config(folder.config, cell, data=data, device=device)
        if not config.deterministic:
            # The engine has shared the cores among its processes.
            config = replace(config, threads=torch.get_num_threads())
        run_at(folder.run(cell).folder, config, features=features)
    except FsodError as error:
        return Failure(cell, error.message, error.exit_code)
    except Exception as error:  # a bug in one cell must not stop the others
        return Failure(cell, f"{type(error).__name__}: {error}", FsodError.exit_code)
    return None


def _check_test_sets(folder: SweepFolder, groups: Sequence[Group]) -> None:
    """A sweep compares mAP on test sets, so each data set needs one; raises DataError."""
    paths = dict.fromkeys(folder.data(group) for group in groups)
    without = [path for path in paths if open_dataset(path).test is None]
    if without:
        raise DataError(
            f"no test set in {', '.join(map(str, without))}: a sweep compares mAP on test images",
            hint="Give fewer --shots, or a --test-source and another --out.",
        )


def _lost(folder: SweepFolder, outcome: Lost) -> list[Failure]:
    return [Failure(cell, outcome.reason, FsodError.exit_code) for cell in folder.missing_of(outcome.item)]


@contextmanager
def _progress(folder: SweepFolder, reporter: Reporter) -> Iterator[None]:
    """Show finished cells while the context lasts.

    They are counted in the folder, because they may be run by other processes and machines.
    """
    missing = folder.missing()
    total = sum(1 for _ in folder.grid.cells())
    with reporter.progress("Cells", total, total - len(missing)) as task:
        over = Event()
        watcher = Thread(target=_watch, args=(folder, missing, task, over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _watch(folder: SweepFolder, missing: list[Cell], task: Task, over: Event) -> None:
    """Advance the task by each cell that is no longer missing; the last look is after the end."""
    ended = False
    while not ended:
        ended = over.wait(LOOK)
        before, missing = missing, folder.missing()
        left = set(missing)
        for cell in before:
            if cell not in left:
                task.update(str(cell))
                task.advance()
