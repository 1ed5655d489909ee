"""Starting, continuing and repeating a fine-tune: the one way in which every caller does it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_cli import encoders
from fewshot_cli.datasets.formats import train_and_test
from fewshot_cli.datasets.store import latest_dataset, open_dataset, recorded_detector
from fewshot_cli.detectors.exported import read_info
from fewshot_cli.detectors.registry import WEIGHT_NAMES, check_architecture, depth_in, get_spec
from fewshot_cli.determinism import computing_deterministically
from fewshot_cli.errors import CheckpointError, ConfigError, FsodError, PolicyError
from fewshot_cli.paths import whole
from fewshot_cli.policies import AUTO, get_policy, short_name
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import DEFAULT_ROOT, Run, load_run, new_run
from fewshot_cli.runs.trainable import implied_policy, needs_chain, select_layers, with_architecture, with_budget
from fewshot_cli.threads import choose_threads, use_threads
from fewshot_cli.tracking import check_installed

if TYPE_CHECKING:
    from fewshot_cli.training.features import FeatureStore


def finetune(
    data: str | PathLike[str] | None = None,
    *,
    detector: str | None = None,
    runs: str | PathLike[str] = DEFAULT_ROOT,
    name: str | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> Run:
    """Train the layers that a policy chooses, measure, and record the run in a new folder.

    Args:
        data: a data set or its folder; default: the one fetched last under `data/`.
        detector: a name in the registry; default: that of an exported weights file, else the one made for the data set,
            else FinetuneConfig's.
        runs: folder in which the run's own folder is made.
        name: of that folder; default: from data set, detector, policy, budget and seed.
        reporter: receives progress and remarks; default: none is shown.
        options: any field of FinetuneConfig: policy, budget, iterations, lr, seed, ….

    Returns:
        the finished run; `run.result` holds what was measured.

    Raises:
        ConfigError, PolicyError: an unknown option, a wrong value, a tracker that is not installed, or a
            budget that the head does not have.
        DataError: no data set, or one that cannot be used.
        ModelError, CheckpointError, NetworkError: the detector or its weights cannot be had.
        DivergedError: a loss is not finite; what was saved before stays.
    """
    reporter = reporter or SilentReporter()
    config = configure(data, detector, options, reporter)
    run = new_run(Path(runs), name, run_stem(config))
    reporter.say(f"Run: {run.folder}")
    return _start(run, config, reporter)


def resume(folder: str | PathLike[str], *, reporter: Reporter | None = None) -> Run:
    """Continue a stopped run, with the options it was started with; a finished one is returned as it is.

    Raises:
        DataError: no run is in the folder, or another process trains it.
        FsodError: as `finetune`.
    """
    reporter = reporter or SilentReporter()
    run = load_run(Path(folder))
    if run.finished:
        reporter.say(f"{run.folder} is finished already.")
        return run
    reporter.say(f"Run: {run.folder}")
    with run.training():
        return _train(run, run.read_config(), reporter, None)


def run_at(
    folder: Path, config: FinetuneConfig, *, reporter: Reporter | None = None, features: FeatureStore | None = None
) -> Run:
    """Start the run in exactly this folder, or continue it there; a finished one is returned as it is.

    Args:
        features: caches shared with other runs.

    Raises:
        FsodError: as `finetune`.
    """
    run, reporter = Run(folder), reporter or SilentReporter()
    if run.finished:
        return run
    config = _resolved(config, reporter)
    with run.training():
        config = replace(config, threads=_recorded_threads(run) or _threads(config, reporter))
        run.write_config(config)
        return _train(run, config, reporter, features)


def configure(
    data: str | PathLike[str] | None, detector: str | None, options: dict[str, Any], reporter: Reporter
) -> FinetuneConfig:
    """The configuration of a new run, everything that is left open filled in and checked before anything is loaded.

    Paths become absolute, so that the run can be measured and continued from any folder.
    """
    # Wrong options are reported before a data set is looked for.
    options = {**options, "policy": implied_policy(options)}
    given = FinetuneConfig.from_json({**options, "data": str(data or ""), "detector": detector or ""})
    get_policy(given.policy)
    if given.candidates and given.policy != AUTO:
        raise PolicyError(
            f"--candidates does not go with policy {given.policy}",
            hint=f"Drop one of them: policy {AUTO} alone compares candidates.",
        )
    check_installed(given.tracker)
    distil, refine = _encoder(given.distil, "--distil"), _encoder(given.refine, "--refine")
    if detector:
        get_spec(detector)
    if data is None:
        data = latest_dataset().path
        reporter.say(f"Data set: {data}, the most recently fetched one.")
    folder = Path(data)
    config = replace(
        given,
        data=str(whole(folder)),
        detector=detector or _detector_in(given.weights) or recorded_detector(folder) or FinetuneConfig.detector,
        weights=given.weights if given.weights in WEIGHT_NAMES else str(whole(given.weights, error=CheckpointError)),
        distil=distil,
        refine=refine,
    )
    config = _resolved(config, reporter)
    return replace(config, threads=_threads(config, reporter))


def _threads(config: FinetuneConfig, reporter: Reporter) -> int:
    """How many compute: the free cores, but one where the bits must be the same on any machine of this kind."""
    if config.deterministic and config.threads is None:
        reporter.say("Using 1 thread: the number of threads changes the last bits (--threads sets it).")
        return 1
    return choose_threads(config.threads, reporter)


def _resolved(config: FinetuneConfig, reporter: Reporter) -> FinetuneConfig:
    """The configuration with the size of the detector and the budget filled in, checked against the detector.

    What policy `auto` trains is checked when it is found.
    """
    config = with_architecture(config)
    check_architecture(config.detector, config.weights, config.architecture)
    config = with_budget(config, depth_in(config.detector, config.architecture), reporter)
    if needs_chain(config):
        from fewshot_cli.training.outline import resolve

        config = resolve(config, len(open_dataset(config.data).train.classes), reporter)
    if config.policy != AUTO:
        select_layers(config)
    return config


def _encoder(named: str | None, option: str) -> str | None:
    """An encoder with the absolute path of its weights; raises ConfigError if its package is not installed."""
    if named is None:
        return None
    encoders.check_installed(named, option)
    return encoders.with_whole_path(named)


def _detector_in(weights: str) -> str | None:
    """The detector in a file of `fsod export --format weights`; None for other weights."""
    info = None if weights in WEIGHT_NAMES else read_info(weights)
    return info.detector if info else None


def run_stem(config: FinetuneConfig) -> str:
    """The default name of a run: data set, detector, policy with what it trains, and seed."""
    spent = short_name(config.policy, config.budget, config.layers, config.freeze_first)
    return f"{Path(config.data).resolve().name}-{config.detector}-{spent}-seed{config.seed}"


def _recorded_threads(run: Run) -> int | None:
    """A run that was begun keeps its number of threads, so that it ends with the same bits."""
    with suppress(ConfigError):
        return run.read_config().threads if run.config_file.exists() else None
    return None


def _start(run: Run, config: FinetuneConfig, reporter: Reporter) -> Run:
    try:
        with run.training():
            run.write_config(config)
            return _train(run, config, reporter, None)
    except FsodError:
        # E.g. weights that do not load: nothing was begun, so nothing is left behind.
        run.discard_if_bare()
        raise


def _train(run: Run, config: FinetuneConfig, reporter: Reporter, features: FeatureStore | None) -> Run:
    """Train what is left, by the process that holds the run's lock; another may have finished it just before."""
    if run.finished:
        return run
    from fewshot_cli.selection.search_run import search_run
    from fewshot_cli.selection.validate_run import validate_run
    from fewshot_cli.training.clock import Clock
    from fewshot_cli.training.finetune import finetune as fine_tune
    from fewshot_cli.training.finetune import not_validated

    if config.threads:
        use_threads(config.threads)
    reporter.on_interrupt(f"Continue with: fsod finetune --resume {run.folder}")
    clock = Clock()
    facts: dict[str, Any] = {}
    with computing_deterministically(config.deterministic):
        if config.policy == AUTO:
            with clock.measures("search"):
                config, features, facts = search_run(run, config, features, reporter)
        folds = _folds(config)
        validate = partial(validate_run, run, folds, reporter) if folds else not_validated
        fine_tune(config, run, reporter, features=features, validate=validate, facts=facts, clock=clock)
    return run


def _folds(config: FinetuneConfig) -> int:
    """Folds of the cross-validation; by default, it stands in for a test set, and chooses what --refine needs."""
    from fewshot_cli.selection.folds import default_folds

    if config.cross_validate is not None:
        return config.cross_validate
    needed = config.refine or not train_and_test(config.data_folder).test
    return default_folds(config.policy) if needed else 0
