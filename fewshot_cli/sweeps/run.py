"""Running a sweep: fetch the data sets, run what is missing, sum up. A cell that fails stops no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Any, Literal, NamedTuple

from typing_extensions import Doc, TypedDict

from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.errors import DataError, FsodError
from fewshot_cli.progress import Reporter, SilentReporter, Task
from fewshot_cli.schemas import schema_of
from fewshot_cli.sources.drawn_splits import survey_sources
from fewshot_cli.sources.fetch import fetch
from fewshot_cli.sources.vocabulary import with_all_classes
from fewshot_cli.sweeps.cells import Cell, Group
from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.engines import get_engine
from fewshot_cli.sweeps.engines.contract import Engine, Lost
from fewshot_cli.sweeps.folder import SweepFolder, open_sweep
from fewshot_cli.sweeps.pivot import Pivot, PivotTable, pivots
from fewshot_cli.sweeps.presets import configure
from fewshot_cli.sweeps.requests import check_cells, features_key, features_options, fetch_request, finetune_config
from fewshot_cli.sweeps.studies import get_study
from fewshot_cli.sweeps.studies.contract import Verdict
from fewshot_cli.sweeps.summary import Summary, SweepTable, summarize
from fewshot_cli.threads import choose_threads, use_threads
from fewshot_cli.verbs.finetune import run_at

LOOK = 1.0
"""Seconds between two looks at which cells are finished."""


class CellFailure(TypedDict):
    """A cell that could not be run."""

    cell: Annotated[str, Doc("Which.")]
    message: Annotated[str, Doc("Why.")]
    exit_code: Annotated[int, Doc("Of its error.")]
    hint: Annotated[str | None, Doc("What to do.")]


class Swept(TypedDict):
    """What `fsod sweep --json` prints."""

    schema: Annotated[Literal["fsod/sweep/1"], Doc("Kind and version.")]
    folder: Annotated[str, Doc("The sweep's folder.")]
    tables: Annotated[list[SweepTable], Doc("One a detector and number of shots; none with --vary.")]
    pivots: Annotated[list[PivotTable], Doc("With --vary: one for each panel.")]
    claims: Annotated[list[Verdict], Doc("Of a study: each claim of its source, and what was measured.")]
    failures: Annotated[list[CellFailure], Doc("Cells that could not be run.")]
    files: Annotated[list[str], Doc("Tables, plots and the page.")]


class Failure(NamedTuple):
    """A cell that could not be run, or whose files are damaged: the message, hint and exit code of the error."""

    cell: Cell
    message: str
    exit_code: int
    hint: str | None = None


class Cause(NamedTuple):
    """What several cells failed for."""

    message: str
    hint: str | None
    exit_code: int
    cells: tuple[Cell, ...]

    def __str__(self) -> str:
        count = "1 cell" if len(self.cells) == 1 else f"{len(self.cells)} cells"
        first = f"{self.cells[0]}" if len(self.cells) == 1 else f"the first is {self.cells[0]}"
        return f"{count} failed ({first}): {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep leaves.

    Attributes:
        folder: its folder, with the runs of all cells.
        results: the finished cells, with the content of their result.json; without those whose files are damaged.
        summaries: a table for each detector and number of shots, over these; none with `vary`.
        pivots: with `vary`, the tables over its axes.
        claims: of a study, what the cells say of each claim of its source.
        failures: cells that could not be run this time, which the next call tries again, and damaged ones.
    """

    folder: SweepFolder
    results: dict[Cell, dict[str, Any]]
    summaries: tuple[Summary, ...]
    failures: tuple[Failure, ...]
    pivots: tuple[Pivot, ...] = ()
    claims: tuple[Verdict, ...] = ()

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def causes(self) -> list[Cause]:
        """What cells failed for, the one of most cells first."""
        found: dict[tuple[str, int], list[Failure]] = {}
        for failure in self.failures:
            found.setdefault((_without_names(failure), failure.exit_code), []).append(failure)
        causes = [
            Cause(each[0].message, each[0].hint, each[0].exit_code, tuple(failure.cell for failure in each))
            for each in found.values()
        ]
        return sorted(causes, key=lambda cause: -len(cause.cells))

    def to_json(self) -> dict[str, Any]:
        """The folder, the tables and the failures."""
        return {
            "schema": schema_of(Swept),
            "folder": str(self.path),
            "tables": [summary.to_json() for summary in self.summaries],
            "pivots": [pivot.to_json() for pivot in self.pivots],
            "claims": [asdict(claim) for claim in self.claims],
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
    """Fine-tune over a grid of classes, shots, seeds, detectors, policies, budgets and what else is varied.

    A sweep that was stopped continues when it is called again: finished cells are not run again, and a cell that was
    stopped in the middle continues from its saved state.

        result = sweep(["helmet", "bird"], source="miniature", budgets=(2, 3), seeds=3)
        print(result.summaries[0].rows)

    Args:
        classes: one class, or several; each is fine-tuned on its own.
        source: where images come from, as in `fetch`; `{class}` in it stands for the class.
        out: folder of the sweep, new or to be continued.
        preset: `table1`, the paper's grid, or a name in `sweeps.studies.STUDIES`; `options` take precedence.
        engine: a name in `sweeps.engines.ENGINES`: `local` or `ray`.
        jobs: processes at a time (engine local); default: 1, this process.
        address: of the cluster (engine ray); default: a cluster of this machine's own.
        share: cells with the same shots, detector and cut use the same cached features.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for every cell.
        threads: CPU threads of all processes on this machine together; None: one for each free core.
        reporter: receives progress and remarks.
        options: further fields of SweepConfig: `policies`, `budgets`, `shots`, `seeds`, `detectors`, `weights`, …;
            `options` and `fetch_options` are dictionaries of further options of `finetune` and `fetch`, and `vary` one
            of options with a tuple of values each.

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
    config = configure(classes, source=source, preset=preset, **options)
    check_cells(config, device)
    threads = choose_threads(threads, reporter)
    folder = open_sweep(Path(out), config)
    use_threads(threads)
    failures = run_missing(folder, chosen, share=share, device=device, reporter=reporter)
    results, damaged = read_finished(folder)
    return SweepResult(
        folder=folder,
        results=results,
        summaries=() if config.vary else tuple(summarize(results.items())),
        failures=(*failures, *damaged),
        pivots=tuple(pivots(config, results)) if config.vary and results else (),
        claims=tuple(get_study(config.study).judge(results)) if config.study and results else (),
    )


def check_sources(config: SweepConfig) -> None:
    """Look whether the sources have every class and enough images of it; nothing is drawn or downloaded.

    Raises:
        FsodError: what `fetch` raises for the sources.
    """
    for name in config.classes:
        group = next(config.grid.groups())._replace(class_name=name, shots=max(config.shots, default=None))
        request = with_all_classes(fetch_request(config, group, Path()))
        sources = (*request.sources, *filter(None, [request.source_of_test]))
        if not any(source.downloads for source in sources):
            survey_sources(request, SilentReporter())


def read_finished(folder: SweepFolder) -> tuple[dict[Cell, dict[str, Any]], list[Failure]]:
    """The finished cells with the content of their result.json, and those of which a file is missing or damaged."""
    results, failures = {}, []
    for cell in folder.finished():
        try:
            results[cell] = folder.read_checked(cell)
        except FsodError as error:
            failures.append(_failure(cell, error))
    return results, failures


def run_missing(folder: SweepFolder, engine: Engine, *, share: bool, device: str, reporter: Reporter) -> list[Failure]:
    """Run every cell that is not finished; the arguments are those of `sweep`.

    Returns:
        the cells that could not be run.
    """
    failures = fetch_data(folder, reporter)
    failed = {failure.cell.group for failure in failures}
    groups = [group for group in folder.grid.groups() if group not in failed]
    batches = [batch for group in groups for batch in batches_of(folder, group, share=share)]
    # A whole path, because a worker may have another working directory.
    work = partial(run_batch, SweepFolder(folder.path.resolve(), folder.config), share=share, device=device)
    with _progress(folder, reporter), closing(engine.run(work, batches)) as outcomes:
        for outcome in outcomes:
            failures += _lost(folder, outcome) if isinstance(outcome, Lost) else outcome.result
    return failures


def fetch_data(folder: SweepFolder, reporter: Reporter) -> list[Failure]:
    """Draw every data set that is not there yet and open the others; where that fails, its own cells fail alone.

    Raises:
        DataError: a data set without a test set.
    """
    failures: list[Failure] = []
    sets: dict[str, list[Cell]] = {}
    for cell in folder.missing():
        sets.setdefault(cell.group.data_name, []).append(cell)
    without: list[Path] = []
    with reporter.progress("Data sets", len(sets)) as task:
        for cells in sets.values():
            try:
                data = _data_set(folder, cells[0].group)
                without += [data.path] if data.test is None else []
            except FsodError as error:
                failures += [_failure(cell, error) for cell in cells]
            task.advance()
    if without:
        raise DataError(
            f"no test set in {', '.join(map(str, without))}: a sweep compares mAP on test images",
            hint="Give fewer --shots, or a --test-source and another --out.",
        )
    return failures


def _data_set(folder: SweepFolder, group: Group) -> Dataset:
    """The data set of a group, which is drawn if it is not there."""
    path = folder.data(group)
    if not path.exists():
        fetch(fetch_request(folder.config, group, folder.data_root))
    return open_dataset(path)


def batches_of(folder: SweepFolder, group: Group, *, share: bool) -> Iterator[tuple[Cell, ...]]:
    """The unfinished cells of a group; those that can share features, which takes one process, are together."""
    batches: dict[object, list[Cell]] = {}
    for cell in folder.missing_of(group):
        batches.setdefault(features_options(cell) if share else cell, []).append(cell)
    yield from map(tuple, batches.values())


def run_batch(folder: SweepFolder, cells: Sequence[Cell], *, share: bool, device: str) -> list[Failure]:
    """Run cells one after the other, those with the same cut together, so that they share features."""
    from fewshot_cli.training.features import FeatureStore

    store = FeatureStore() if share else None
    missing = [cell for cell in cells if not folder.run(cell).finished]
    ordered = sorted(missing, key=partial(features_key, folder.config))
    return [failure for cell in ordered if (failure := run_cell(folder, cell, store, device))]


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
        return _failure(cell, error)
    except Exception as error:  # a bug in one cell must not stop the others
        return Failure(cell, f"{type(error).__name__}: {error}", FsodError.exit_code)
    return None


def _failure(cell: Cell, error: FsodError) -> Failure:
    return Failure(cell, error.message, error.exit_code, error.hint)


def _without_names(failure: Failure) -> str:
    """The message without the names of its run and data set, which are others in each cell."""
    cell = failure.cell
    return failure.message.replace(cell.run_name, "RUN").replace(cell.group.data_name, "DATA")


def _lost(folder: SweepFolder, outcome: Lost) -> list[Failure]:
    missing = [cell for cell in outcome.item if not folder.run(cell).finished]
    return [Failure(cell, outcome.reason, FsodError.exit_code) for cell in missing]


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
