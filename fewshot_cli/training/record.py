"""Last step of a fine-tune: check that frozen tensors did not change, then write checkpoint, predictions and result."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from fewshot_cli.datasets.fingerprint import fingerprint
from fewshot_cli.datasets.store import Dataset
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.device import peak_memory
from fewshot_cli.environment import Environment, describe_environment
from fewshot_cli.errors import FsodError
from fewshot_cli.evaluation.coco_metrics import Metrics
from fewshot_cli.evaluation.drift import DriftSince
from fewshot_cli.runs.checkpoint import save_checkpoint
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.runs.result import Result
from fewshot_cli.runs.schedules import parse_schedule
from fewshot_cli.schemas import schema_of
from fewshot_cli.training.clock import Clock
from fewshot_cli.training.features import Features
from fewshot_cli.training.fit import Progress, measure_train
from fewshot_cli.training.plan import FrozenCheck
from fewshot_cli.training.prepare import Prepared, parameter_counts
from fewshot_cli.training.schedule import decay_gain


class Before:
    """The detector before training: what must not change, and what drift is measured from."""

    def __init__(self, detector: Detector) -> None:
        self.frozen = FrozenCheck(detector)
        self.drift = DriftSince(detector)


def record(
    run: Run,
    config: FinetuneConfig,
    data: Dataset,
    prepared: Prepared,
    features: Features,
    progress: Progress,
    before: Before,
    facts: dict[str, Any],
    clock: Clock,
) -> dict[str, Any]:
    """Write what a finished fine-tune leaves behind; returns the content of result.json.

    Args:
        facts: how the detector was averaged, and what was chosen and estimated from the shots.
        clock: counted the steps so far.

    Raises:
        FsodError: a frozen tensor changed, which is a bug.
        StorageError: the disk cannot be written.
    """
    changed = before.frozen.changed(prepared.detector)
    if changed:
        raise FsodError(f"{len(changed)} of {len(before.frozen)} frozen tensors changed, first {changed[0]}: a bug")
    state = prepared.detector.network.state_dict()
    tensors = {name: state[name] for name in prepared.kept}
    save_checkpoint(run.checkpoint, tensors, prepared.info_after(progress.iteration))
    with clock.measures("evaluation"):
        train = progress.train_metrics or measure_train(prepared, features, data.train)
        measured = _measured(config, progress, train)
    if progress.metrics is not None:
        run.write_predictions(progress.results)
    result = {
        **_about(run, config, data, prepared),
        **measured,
        "search": None,
        "cross_validation": None,
        "thresholds": {},
        "refine": None,
        **facts,
        "frozen": {"tensors": len(before.frozen), "changed": 0},
        "drift": before.drift.by_layer(prepared.detector),
        "convolution_drift": before.drift.by_convolution(prepared.detector),
        "peak_memory_mb": round(peak_memory(prepared.placed.device) / 1e6),
        "cached_mb": round(features.bytes_stored / 1e6, 1),
        "seconds": {name: round(value, 2) for name, value in clock.seconds().items()},
        "environment": _environment(config, data, prepared),
    }
    run.write_result(result)
    return result


def _about(run: Run, config: FinetuneConfig, data: Dataset, prepared: Prepared) -> dict[str, Any]:
    """What was done, with what."""
    trained, total = parameter_counts(prepared.detector)
    tests = len(data.test.images) if data.test else 0
    return {
        "schema": schema_of(Result),
        "run": str(run.folder),
        "data": config.data,
        "classes": list(prepared.detector.classes),
        "known_classes": list(prepared.known_classes),
        "detector": config.detector,
        "architecture": asdict(prepared.info.architecture) if prepared.info.architecture.chosen else None,
        "policy": prepared.info.policy,
        "budget": prepared.info.budget,
        "freeze_first": prepared.info.freeze_first,
        "trained_layers": list(prepared.info.trained_layers),
        "parameters": {"trained": trained, "total": total},
        "keep_base_classes": asdict(prepared.second_head) if prepared.second_head else None,
        "images": {"train": len(data.train.images), "test": tests},
        "seed": config.seed,
        "backbone_lr": prepared.backbone_lr,
        "small_object_lr": prepared.small_object_lr,
        "norm_statistics": prepared.info.norm_statistics,
        "precision": prepared.precision,
        "device": str(prepared.placed.device),
        "threads": torch.get_num_threads(),
    }


def _environment(config: FinetuneConfig, data: Dataset, prepared: Prepared) -> Environment:
    splits = {"train": data.train, **({"test": data.test} if data.test else {})}
    return describe_environment(
        device=str(prepared.placed.device),
        precision=prepared.precision,
        threads=torch.get_num_threads(),
        deterministic=config.deterministic,
        data={name: fingerprint(split) for name, split in splits.items()},
    )


def _measured(config: FinetuneConfig, progress: Progress, train: Metrics) -> dict[str, Any]:
    """What was measured on the training images, and on the test set: None for each where there is none."""
    best, metrics = progress.best, progress.metrics
    return {
        "iterations": progress.iteration,
        "ap": metrics.ap if metrics else None,
        "ap_interval": metrics.ap_interval() if metrics else None,
        "caveats": metrics.caveats if metrics else [],
        "best": {"ap": best["ap"], "iteration": best["iteration"]} if best else None,
        "metrics": metrics.to_json() if metrics else None,
        "boxes": {"train": train.boxes, "test": metrics.boxes if metrics else 0},
        "train_ap": train.ap,
        "balance": _balance(config, progress),
        "decay_gain": decay_gain(progress.records, parse_schedule(config.schedule), config.iterations),
        "generalisation_gap": train.ap - metrics.ap if metrics else None,
    }


def _balance(config: FinetuneConfig, progress: Progress) -> dict[str, Any] | None:
    means = progress.records[-1].get("balance")
    return {"method": config.balance, "w_c": means["w_c"], "w_l": means["w_l"]} if means else None
