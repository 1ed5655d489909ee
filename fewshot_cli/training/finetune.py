"""One fine-tune from a data set to a measured run on disk. Reads from top to bottom in `finetune`."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fewshot_cli.datasets.classes import class_key
from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.datasets.types import Split
from fewshot_cli.detectors.chain import Activations, Detections, Target
from fewshot_cli.detectors.device import choose_device, computes_in_bf16, forget_peak_memory, peak_memory
from fewshot_cli.detectors.registry import build_detector, get_spec, head_depths
from fewshot_cli.detectors.weights import state_fingerprint, tensor_fingerprints
from fewshot_cli.errors import DataError, DivergedError, FsodError
from fewshot_cli.evaluation.coco_metrics import Metrics
from fewshot_cli.evaluation.drift import LayerDrift
from fewshot_cli.evaluation.measure import score
from fewshot_cli.policies import Selection, select
from fewshot_cli.progress import Reporter, SilentReporter, Task
from fewshot_cli.runs.checkpoint import CheckpointInfo, load_tensors, save_checkpoint, tensors_to_keep
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.training.cache import FeatureCache
from fewshot_cli.training.class_init import choose_inits, describe_init, similar_classes
from fewshot_cli.training.features import FeatureStore
from fewshot_cli.training.fit import StepOptions, make_optimizer, train
from fewshot_cli.training.plan import FrozenCheck, fine_share, freeze, learning_rates, trained_parameters
from fewshot_cli.training.schedule import batch_order
from fewshot_cli.training.variants import Example, Examples

GIB = 1 << 30
SAVE_EVERY = 50
"""Iterations between two saved states when nothing is measured in between."""


def select_layers(config: FinetuneConfig) -> Selection:
    """What the configuration trains, checked against the detector's head; raises PolicyError, ModelError."""
    return select(
        config.policy,
        config.budget,
        get_spec(config.detector).head_depth,
        neck=config.train_neck,
        backbone_stages=config.backbone_stages,
        depths=head_depths(),
    )


def finetune(
    config: FinetuneConfig, run: Run, reporter: Reporter | None = None, *, features: FeatureStore | None = None
) -> dict[str, Any]:
    """Fine-tune, measure and record; goes on from the run's saved state if it has one.

    Args:
        config: what to do.
        run: where it is recorded.
        features: shared with fine-tunes before and after this one.

    Returns:
        the content of the run's result.json.

    Raises:
        FsodError: any of its kinds; what was saved before stays.
    """
    reporter = reporter or SilentReporter()
    started = time.perf_counter()
    session = _Session(config, run, reporter, features or FeatureStore())
    session.cache_features()
    session.train()
    return session.finish(time.perf_counter() - started)


@dataclass
class _Progress:
    """How far a run is: what a saved state holds, besides parameters and optimizer."""

    iteration: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best(self) -> dict[str, Any] | None:
        return max(self.records, key=lambda record: record["ap"], default=None)


class _Session:
    """The pieces of one fine-tune while it runs."""

    def __init__(self, config: FinetuneConfig, run: Run, reporter: Reporter, features: FeatureStore) -> None:
        self.config, self.run, self.reporter, self.features = config, run, reporter, features
        self.seconds: dict[str, float] = {}
        selection = select_layers(config)
        self.device = choose_device(config.device)
        forget_peak_memory(self.device)
        self.data = _open(config)
        self.detector = build_detector(
            config.detector,
            weights=config.weights,
            image_size=config.image_size,
            seed=config.seed,
            reporter=reporter,
        )
        # A data set that `fsod augment` wrote is used as it is, and what trains nothing needs no variants.
        self.copies = 1 if "augmentation" in self.data.record or config.policy == "none" else config.copies
        base_fingerprint = state_fingerprint(self.detector.network)
        base = tensor_fingerprints(self.detector.network)
        self._give_classes()
        self.small_object_lr = config.small_object_lr or fine_share(self.detector, self.data.shots)
        self.bf16 = computes_in_bf16(config.precision, self.device, self.detector)
        self.split = freeze(self.detector, selection)
        self.kept = tensors_to_keep(self.detector, base, tensor_fingerprints(self.detector.network))
        self.detector.place(self.device)
        self.proof = FrozenCheck(self.detector)
        self.drift = LayerDrift(self.detector)
        self.info = self._describe(selection, base_fingerprint)
        self.progress = _Progress()
        self._introduce()

    def _introduce(self) -> None:
        """What is about to happen, before it takes time."""
        shots, boxes = self.data.train.images, sum(len(image.boxes) for image in self.data.train.images)
        trained, total = self._parameter_counts()
        layers = ", ".join(self.info.trained_layers) or "nothing"
        self.reporter.say(
            f"Shots: {len(shots)} images with {boxes} boxes; test: {len(self.data.require_test().images)} images."
        )
        if self.small_object_lr != 1 and self.config.small_object_lr is None and self.config.policy != "none":
            self.reporter.say(
                f"Most objects are small: the head's finest level learns {self.small_object_lr:g} times as fast."
            )
        self.reporter.say(
            f"Training {layers}: {trained:,} of {total:,} parameters, in {self._precision} on {self.device}."
        )

    @property
    def _precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"

    def _parameter_counts(self) -> tuple[int, int]:
        """Parameters that train, and all."""
        counted = [(parameter.numel(), parameter.requires_grad) for parameter in self.detector.network.parameters()]
        return sum(size for size, trains in counted if trains), sum(size for size, _ in counted)

    def _give_classes(self) -> None:
        classes = self.data.train.classes
        known = self.detector.classes if self.detector.pretrained else ()
        self.known_classes = [name for name in classes if class_key(name) in map(class_key, known)]
        inits = choose_inits(
            classes,
            known,
            self.config.init_class,
            lambda: similar_classes(self.detector, self.data.shots, self.reporter),
        )
        for name, bases in zip(classes, inits, strict=True):
            self.reporter.say(f"Class {name!r} starts from {describe_init(bases, known)}.")
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.config.seed)
            self.detector.replace_classes(classes, inits)

    def _describe(self, selection: Selection, base_fingerprint: str) -> CheckpointInfo:
        names = [layer.name for layer, trains in zip(self.detector.layers, self.split.trained, strict=True) if trains]
        return CheckpointInfo(
            detector=self.config.detector,
            weights=self.config.weights,
            base_fingerprint=base_fingerprint,
            classes=self.detector.classes,
            image_size=self.detector.image_size,
            policy=selection.policy,
            budget=selection.budget,
            trained_layers=tuple(names),
            iteration=0,
            seed=self.config.seed,
        )

    def cache_features(self) -> None:
        """Run the frozen prefix once over every variant and every test image."""
        started = time.perf_counter()
        shots = Examples(
            self.detector,
            self.data.train.images,
            copies=self.copies,
            augmentation=self.config.augmentation,
            seed=self.config.seed,
        )
        memory, disk = int(self.config.cache_memory * GIB), int(self.config.cache_disk * GIB)
        variants = (self.copies, self.config.augmentation, self.config.seed)
        self.train_features = self._cache("train", shots, variants, memory, disk, "Features of the variants")
        memory -= self.train_features.in_memory * self.train_features.bytes_per_item
        disk -= self.train_features.on_disk * self.train_features.bytes_per_item
        tests = Examples(self.detector, self.data.require_test().images)
        self.test_features = self._cache("test", tests, (), memory, disk, "Features of the test images")
        self.seconds["features"] = time.perf_counter() - started

    def _cache(
        self, kind: str, examples: Examples, variants: Hashable, memory: int, disk: int, description: str
    ) -> FeatureCache[Example]:
        bf16 = self.config.cache_type == "bf16" or (self.config.cache_type == "auto" and self.bf16)

        def make() -> FeatureCache[Example]:
            cache = FeatureCache(
                examples.prefix(self.split.cut, self.device, self.bf16),
                len(examples),
                memory=memory,
                disk=disk,
                folder=self.run.folder,
                dtype=torch.bfloat16 if bf16 else torch.float32,
                device=self.device,
            )
            return cache.fill(self.reporter, description)

        base = (self.info.detector, self.info.base_fingerprint, self.info.image_size, self.split.cut)
        computed = (str(self.device), self.bf16, bf16)
        images = str(self.config.data_folder.resolve())
        return self.features.get(kind, (base, computed, images, variants, memory, disk), make)

    def train(self) -> None:
        """Train what is left of the iterations, measuring and saving on the way."""
        started = time.perf_counter()
        if not trained_parameters(self.detector):
            self._measure_and_record(0, {})
            return
        config = self.config
        optimizer = make_optimizer(
            config.optimizer,
            learning_rates(self.detector, config.backbone_lr, self.small_object_lr),
            lr=config.lr,
            weight_decay=config.weight_decay,
        )
        self._resume(optimizer)
        order = batch_order(len(self.train_features), config.batch_size, config.iterations, config.seed)
        options = StepOptions(
            iterations=config.iterations, lr=config.lr, warmup=config.warmup, clip=config.clip, bf16=self.bf16
        )
        with self.reporter.progress("Training", config.iterations, self.progress.iteration) as task:
            train(
                self.detector,
                self.split.cut,
                self._batch,
                order,
                optimizer,
                options,
                start=self.progress.iteration,
                after_step=lambda done, losses: self._after_step(done, losses, optimizer, task),
            )
        self.seconds["training"] = time.perf_counter() - started

    def _batch(self, items: Sequence[int]) -> tuple[Activations, list[Target]]:
        activations, examples = self.train_features.batch(items)
        targets = [example.target for example in examples]
        return activations, [Target(t.boxes.to(self.device), t.labels.to(self.device)) for t in targets]

    def _after_step(self, done: int, losses: dict[str, float], optimizer: torch.optim.Optimizer, task: Task) -> None:
        self.progress.iteration = done
        last = done == self.config.iterations
        every = self.config.eval_every
        if last or (every and done % every == 0):
            self._measure_and_record(done, losses)
        if not last and done % (every or SAVE_EVERY) == 0:
            self._save_state(optimizer)
        best = self.progress.best
        task.update(
            f"loss {losses['loss']:.3f}" + (f", test mAP {self.progress.records[-1]['ap']:.3f}" if best else "")
        )
        task.advance()

    def _measure_and_record(self, done: int, losses: dict[str, float]) -> None:
        self._check_parameters(done)
        self.measured = self._measure(self.test_features, range(len(self.test_features)), self.data.require_test())
        metrics, _ = self.measured
        before = self.progress.best
        rounded = {name: round(value, 6) for name, value in losses.items()}
        self.progress.records.append({"iteration": done, "ap": metrics.ap, "losses": rounded, **metrics.to_json()})
        if before is None or metrics.ap > before["ap"]:
            self._save_checkpoint(self.run.best_checkpoint, done)
        self.run.write_metrics(self.progress.records)

    def _check_parameters(self, done: int) -> None:
        """A step with a finite loss and gradient can still be too large for the numbers themselves."""
        for name, parameter in trained_parameters(self.detector).items():
            if not bool(torch.isfinite(parameter).all()):
                raise DivergedError(
                    f"{name} is not finite after iteration {done}",
                    hint="Lower --lr. What was saved before is intact.",
                )

    def _measure(
        self, features: FeatureCache[Example], items: Sequence[int], split: Split
    ) -> tuple[Metrics, list[dict[str, Any]]]:
        found: list[Detections] = []
        for start in range(0, len(items), 8):
            activations, examples = features.batch(items[start : start + 8])
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                found += self.detector.detect(activations, self.split.cut, [example.canvas for example in examples])
        return score(found, split, self.detector.classes)

    def _save_checkpoint(self, path: Path, done: int) -> None:
        state = self.detector.network.state_dict()
        save_checkpoint(path, {name: state[name] for name in self.kept}, replace(self.info, iteration=done))

    def _save_state(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = {name: value.detach().cpu() for name, value in trained_parameters(self.detector).items()}
        self.run.write_state(
            {
                "iteration": self.progress.iteration,
                "records": self.progress.records,
                "parameters": parameters,
                "optimizer": optimizer.state_dict(),
            }
        )

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
        state = self.run.read_state()
        if state is None:
            return
        load_tensors(self.detector, state["parameters"], self.run.state_file)
        optimizer.load_state_dict(state["optimizer"])
        self.progress = _Progress(state["iteration"], state["records"])
        self.reporter.say(f"Going on after iteration {state['iteration']}.")

    def finish(self, seconds: float) -> dict[str, Any]:
        """Prove what stayed frozen, then write checkpoint, predictions and result."""
        changed = self.proof.changed(self.detector)
        if changed:
            raise FsodError(f"{len(changed)} of {len(self.proof)} frozen tensors changed, first {changed[0]}: a bug")
        self._save_checkpoint(self.run.checkpoint, self.progress.iteration)
        metrics, results = self.measured
        shots = range(0, len(self.train_features), self.copies)
        train_metrics, _ = self._measure(self.train_features, shots, self.data.train)
        self.run.write_predictions(results)
        result = self._result(metrics, train_metrics, seconds)
        self.run.write_result(result)
        return result

    def _result(self, metrics: Metrics, train_metrics: Metrics, seconds: float) -> dict[str, Any]:
        best = self.progress.best or {"ap": metrics.ap, "iteration": self.progress.iteration}
        trained, total = self._parameter_counts()
        return {
            "run": str(self.run.folder),
            "data": self.config.data,
            "classes": list(self.detector.classes),
            "known_classes": list(self.known_classes),
            "detector": self.config.detector,
            "policy": self.info.policy,
            "budget": self.info.budget,
            "trained_layers": list(self.info.trained_layers),
            "parameters": {"trained": trained, "total": total},
            "images": {"train": len(self.data.train.images), "test": len(self.data.require_test().images)},
            "iterations": self.progress.iteration,
            "seed": self.config.seed,
            "small_object_lr": self.small_object_lr,
            "ap": metrics.ap,
            "best": {"ap": best["ap"], "iteration": best["iteration"]},
            "train_ap": train_metrics.ap,
            "metrics": metrics.to_json(),
            "frozen": {"tensors": len(self.proof), "changed": 0},
            "drift": self.drift.of(self.detector),
            "peak_memory_mb": round(peak_memory(self.device) / 1e6),
            "precision": self._precision,
            "device": str(self.device),
            "seconds": {**{name: round(value, 2) for name, value in self.seconds.items()}, "total": round(seconds, 2)},
        }


def _open(config: FinetuneConfig) -> Dataset:
    data = open_dataset(config.data_folder)
    if not any(len(image.boxes) for image in data.train.images):
        raise DataError(f"{config.data}: no training image has a box", hint="Fetch again, or check the annotations.")
    return data
