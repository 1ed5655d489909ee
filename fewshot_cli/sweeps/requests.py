"""The fine-tune and the draw of images that a cell of a sweep is."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot_cli.detectors.architecture import Architecture
from fewshot_cli.detectors.exported import check_detector, read_info
from fewshot_cli.detectors.registry import WEIGHT_NAMES, check_architecture
from fewshot_cli.errors import CheckpointError
from fewshot_cli.policies import AUTO, Selection
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.trainable import select_layers, with_architecture
from fewshot_cli.sweeps.axes import DRAWING, FEATURES
from fewshot_cli.sweeps.cells import CLASSES, Cell, Group
from fewshot_cli.tracking import check_installed

if TYPE_CHECKING:
    from fewshot_cli.sources.request import FetchRequest
    from fewshot_cli.sweeps.config import SweepConfig


def finetune_config(config: SweepConfig, cell: Cell, *, data: str, device: str = "auto") -> FinetuneConfig:
    """The fine-tune that a cell is.

    Args:
        data: folder of its data set.
        device: as in FinetuneConfig.

    Raises:
        ConfigError: an unknown option, or a value that cannot work.
    """
    options = FinetuneConfig.from_json(
        {
            # A sweep compares what trains, so nothing else moves the detectors.
            "average": 1.0,
            **config.options,
            "data": data,
            "device": device,
            "detector": cell.group.detector,
            "weights": config.weights,
            "policy": cell.setup.policy,
            "budget": cell.setup.budget,
            "layers": cell.setup.layers,
            "seed": cell.group.seed,
            "eval_every": config.eval_every,
            **dict(cell.options),
        }
    )
    return with_architecture(options)


def features_options(cell: Cell) -> tuple[str, ...]:
    """Varied values on which cached features depend, whatever the cut: cells that differ in them share nothing."""
    return tuple(str(value) for name, value in cell.options if name in FEATURES)


def features_key(config: SweepConfig, cell: Cell) -> tuple[tuple[str, ...], int]:
    """Sort key of a group's cells: equal for those that can share cached features, which are cut at the same layer.

    What policy `auto` trains is not known beforehand; its cells come last.
    """
    computed = features_options(cell)
    if cell.setup.policy == AUTO:
        return computed, sys.maxsize
    options = finetune_config(config, cell, data="")
    return computed, _cut(cell.group.detector, options.architecture, select_layers(options))


@lru_cache
def _cut(detector: str, architecture: Architecture, selection: Selection) -> int:
    from fewshot_cli.training.outline import outline
    from fewshot_cli.training.plan import plan_chain

    return plan_chain(outline(detector, CLASSES, architecture), selection).cut


def fetch_request(config: SweepConfig, group: Group, root: Path) -> FetchRequest:
    """The draw of a group's data set into a folder under `root`.

    Raises:
        ConfigError: an unknown option.
        UsageError: a value that cannot work.
    """
    from fewshot_cli.sources.request import FetchRequest

    options = {**config.fetch_options, **dict(group.drawn)}
    own = {name: options.pop(name) for name in DRAWING if name in options}
    own |= {} if group.shots is None else {"shots": group.shots}
    return FetchRequest(
        source=config.source.replace("{class}", group.class_name),
        test_source=config.test_source.replace("{class}", group.class_name) if config.test_source else None,
        classes=(group.class_name,),
        test_images=config.test_images,
        seed=group.seed if config.draw_seed is None else config.draw_seed,
        name=group.data_name,
        root=root,
        options=options,
        **own,
    )


def check_cells(config: SweepConfig, device: str = "auto") -> None:
    """Check what each setup trains on each detector, before anything is drawn or trained.

    Raises:
        ConfigError: a device, or a tracker, that this machine does not have.
        PolicyError: layers that a detector cannot train.
        CheckpointError: weights that are not there, or of another detector.
    """
    from fewshot_cli.detectors.device import choose_device

    choose_device(device)
    for detector in config.detectors:
        group = next(config.grid.groups())._replace(detector=detector)
        for weights in config.vary.get("weights", (config.weights,)):
            if weights not in WEIGHT_NAMES:
                _check_weights(weights, detector)
        for cell in config.grid.cells_of(group):
            options = finetune_config(config, cell, data="", device=device)
            check_installed(options.tracker)
            check_architecture(detector, options.weights, options.architecture)
            if cell.setup.policy != AUTO:
                select_layers(options)


def _check_weights(weights: str, detector: str) -> None:
    """Raise CheckpointError if a file is not there, or says that it is of another detector."""
    if not Path(weights).is_file():
        raise CheckpointError(f"there are no weights at {weights}", hint="Give a file, default, imagenet or none.")
    info = read_info(weights)
    if info is not None:
        check_detector(weights, info, detector)
