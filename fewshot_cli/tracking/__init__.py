"""Curves and sample images of a fine-tune, sent to an experiment tracker while it trains.

To add a tracker:

1. Write a module beside this one with a function `start(folder, options, known) -> Tracker` (see `Start`).
2. Add a line to TRACKERS, and its package to `[project.optional-dependencies]` under the tracker's name.

A tracker that cannot start is an error before training begins; one that fails later is left out with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fewshot_cli.documents import read_document
from fewshot_cli.errors import ConfigError, DataError, FsodError, closest
from fewshot_cli.files import write_json
from fewshot_cli.progress import Reporter

if TYPE_CHECKING:
    from PIL.Image import Image

KNOWN_FILE = "trackers.json"
"""In the folder of a run: under which id each tracker knows it, so that a resumed run goes on there."""


class Tracker(Protocol):
    """One run, as one tracker records it.

    Attributes:
        id: under which the tracker knows the run.
        where: where a person finds it.
    """

    id: str
    where: str

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Record numbers by name, after so many iterations; names have a group before a slash: `train/loss`."""

    def show(self, images: Mapping[str, Image], iteration: int) -> None:
        """Record images by name."""

    def close(self, finished: bool) -> None:
        """Write what is left; the run is finished, or it failed or was interrupted."""


Start = Callable[[Path, Mapping[str, Any], str | None], Tracker]
"""Folder of the run, its options by name, and the id under which the tracker knows it already → the tracker."""


class TrackerSpec(NamedTuple):
    """module: has a function `start`; package: what it imports, which the extra of the tracker's name installs."""

    module: str
    package: str


TRACKERS = {
    "tensorboard": TrackerSpec("fewshot_cli.tracking.tensorboard", "tensorboard"),
    "mlflow": TrackerSpec("fewshot_cli.tracking.mlflow", "mlflow"),
    "wandb": TrackerSpec("fewshot_cli.tracking.wandb", "wandb"),
}


def known_trackers(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once; raises ValueError for one that is not in TRACKERS."""
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}. {closest(name, TRACKERS)}")
    return chosen


def check_installed(names: Iterable[str]) -> None:
    """Raise ConfigError for the first tracker whose package is not installed; nothing is imported."""
    for name in names:
        if find_spec(TRACKERS[name].package) is None:
            raise ConfigError(
                f"--tracker {name} needs the package {TRACKERS[name].package}, which is not installed",
                hint=f'pip install "fsod[{name}]"',
            )


class Trackers:
    """The trackers of one run. What fails is left out from then on, with a warning: training goes on."""

    def __init__(self, reporter: Reporter) -> None:
        self._trackers: dict[str, Tracker] = {}
        self._reporter = reporter

    def add(self, name: str, tracker: Tracker) -> None:
        """Record with this one too."""
        self._trackers[name] = tracker
        self._reporter.say(f"Tracker {name}: {tracker.where}")

    @property
    def ids(self) -> dict[str, str]:
        """Under which each of them knows the run."""
        return {name: tracker.id for name, tracker in self._trackers.items()}

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Record numbers by name, after so many iterations."""
        self._each(lambda tracker: tracker.log(values, iteration))

    def show(self, make: Callable[[], Mapping[str, Image]], iteration: int) -> None:
        """Record the images that `make` returns; it is called only if there is a tracker."""
        images = cache(make)
        self._each(lambda tracker: tracker.show(images(), iteration))

    def close(self, finished: bool) -> None:
        """End every tracker's record of the run."""
        self._each(lambda tracker: tracker.close(finished))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever another library raises: the fine-tune is worth more than its curves
                del self._trackers[name]
                self._reporter.warn(f"The tracker {name} failed and records no more of this run: {_reason(error)}")
                with suppress(Exception):
                    tracker.close(finished=False)


@contextmanager
def tracking(names: Sequence[str], folder: Path, options: Mapping[str, Any], reporter: Reporter) -> Iterator[Trackers]:
    """The trackers of a run, from their start to the end of the context.

    Args:
        names: keys of TRACKERS.
        folder: of the run.
        options: its configuration, by name.
        reporter: told where each tracker's record is, and of its failures.

    Raises:
        ConfigError: a tracker's package is missing, or it cannot start.
        StorageError: the folder cannot be written.
    """
    trackers, known = Trackers(reporter), _known(folder)
    try:
        for name in names:
            trackers.add(name, _start(name, folder, options, known.get(name)))
        if names:
            write_json(folder / KNOWN_FILE, trackers.ids)
        yield trackers
    except BaseException:
        trackers.close(finished=False)
        raise
    trackers.close(finished=True)


def _start(name: str, folder: Path, options: Mapping[str, Any], known: str | None) -> Tracker:
    check_installed([name])
    try:
        start: Start = import_module(TRACKERS[name].module).start
        return start(folder, options, known)
    except FsodError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the tracker {name} cannot start: {_reason(error)}",
            hint=f"Check its settings, or leave --tracker {name} out.",
        ) from error


def _known(folder: Path) -> dict[str, str]:
    """The ids that an earlier, stopped fine-tune in this folder left; a damaged file is as good as none."""
    with suppress(DataError):
        ids = read_document(folder / KNOWN_FILE, dict[str, str], hint="")
        return {name: ids[name] for name in TRACKERS if name in ids}
    return {}


def _reason(error: Exception) -> str:
    """The first line of what was raised."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
