"""First step of a fine-tune: the detector with its new classes, what trains in it, and where it computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from fewshot_cli.datasets.store import Dataset
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.detectors.two_heads import SecondHead, second_head
from fewshot_cli.detectors.weights import joint_fingerprint, tensor_fingerprints
from fewshot_cli.errors import ConfigError
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.policies import Selection
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.checkpoint import CheckpointInfo, tensors_to_keep
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.trainable import select_layers
from fewshot_cli.training.class_init import Start, choose_inits, describe_init, similar_classes, start_of
from fewshot_cli.training.plan import (
    Plan,
    freeze,
    plan_chain,
    planned_layers,
    planned_parameters,
    trained_tensors,
    trains_before_predictor,
)
from fewshot_cli.training.rates import backbone_share, small_object_share, small_objects_group

FEW_IMAGES = 100
"""Training images below which statistics of batch norms are those of single images rather than of their kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A detector ready to train.

    Attributes:
        placed: the detector with the data set's classes, on its device, frozen but for what trains.
        plan: what trains, and where the chain is cut.
        starts: what each class of the data set is to the pretrained detector.
        copies: variants of each training image, the image itself included.
        second_head: the base's, if its classes are kept; training does not need it.
        backbone_lr: share of the learning rate for neck and backbone.
        small_object_lr: share of the learning rate for the part of the head that is for small objects.
        kept: names of the tensors that a checkpoint holds: what trains, and what is not as in the base.
        info: what a checkpoint says of itself; `iteration` is 0.
    """

    placed: PlacedDetector
    plan: Plan
    starts: dict[str, Start]
    copies: int
    second_head: SecondHead | None
    backbone_lr: float
    small_object_lr: float
    kept: tuple[str, ...]
    info: CheckpointInfo

    @property
    def detector(self) -> Detector:
        return self.placed.detector

    @property
    def known_classes(self) -> tuple[str, ...]:
        """Classes of the data set that the pretrained detector knows by name."""
        return tuple(name for name, start in self.starts.items() if start is Start.KNOWN)

    @property
    def precision(self) -> str:
        """`fp32` or `bf16`."""
        return self.placed.precision

    def info_after(self, iteration: int) -> CheckpointInfo:
        return replace(self.info, iteration=iteration)


def prepare(config: FinetuneConfig, data: Dataset, reporter: Reporter) -> Prepared:
    """Build the detector, give it the classes of the data set, and freeze what does not train.

    Raises:
        ConfigError: base classes are to be kept, but there are none.
        PolicyError, ModelError, ConfigError, CheckpointError, NetworkError: see `select_layers`, `build_detector`.
    """
    selection = select_layers(config)
    detector = build_detector(
        config.detector,
        weights=config.weights,
        image_size=config.image_size,
        seed=config.seed,
        architecture=config.architecture,
        reporter=reporter,
    )
    base = tensor_fingerprints(detector.network)
    beside = _kept_head(detector, config, data, selection) if config.keep_base_classes else None
    starts = _give_classes(detector, config, data, reporter)
    plan = freeze(detector, selection, config.norm_statistics)
    kept = tensors_to_keep(detector, trained_tensors(detector), base, tensor_fingerprints(detector.network))
    return Prepared(
        placed=PlacedDetector.place(detector, config.device, config.precision),
        plan=plan,
        starts=starts,
        copies=_copies(config, data),
        second_head=beside,
        backbone_lr=config.backbone_lr or (1.0 if config.weights == "none" else backbone_share(starts.values())),
        small_object_lr=config.small_object_lr or small_object_share(detector, data.shots),
        kept=tuple(kept),
        info=_describe(config, detector, selection, plan, joint_fingerprint(base)),
    )


def parameter_counts(detector: Detector) -> tuple[int, int]:
    """Parameters that train, and all."""
    counted = [(parameter.numel(), parameter.requires_grad) for parameter in detector.network.parameters()]
    return sum(size for size, trains in counted if trains), sum(size for size, _ in counted)


def _copies(config: FinetuneConfig, data: Dataset) -> int:
    """A data set that `fsod augment` wrote is used as it is, and what trains nothing needs no variants."""
    return 1 if "augmentation" in data.record or config.policy == "none" else config.copies


def _kept_head(detector: Detector, config: FinetuneConfig, data: Dataset, selection: Selection) -> SecondHead:
    """What the pretrained detector, as it is before it gets new classes, adds to the fine-tuned one."""
    if not detector.pretrained:
        raise ConfigError(
            f"--keep-base-classes with --weights {config.weights}: there are no base classes to keep",
            hint="Give weights of the whole detector: COCO's, where they are published, or a file.",
        )
    plan = plan_chain(detector, selection)
    return second_head(detector, data.train.classes, planned_parameters(detector, plan))


def _give_classes(detector: Detector, config: FinetuneConfig, data: Dataset, reporter: Reporter) -> dict[str, Start]:
    """Replace the detector's classes by the data set's; returns what each of them was to it."""
    classes = data.train.classes
    known = detector.classes if detector.pretrained else ()
    inits = choose_inits(classes, known, config.init_class, lambda: similar_classes(detector, data.shots, reporter))
    for name, bases in zip(classes, inits, strict=True):
        reporter.say(f"Class {name!r} starts from {describe_init(bases, known)}.")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed)
        detector.replace_classes(classes, inits)
    return {name: start_of(name, bases, known) for name, bases in zip(classes, inits, strict=True)}


def _describe(
    config: FinetuneConfig, detector: Detector, selection: Selection, plan: Plan, base_fingerprint: str
) -> CheckpointInfo:
    return CheckpointInfo(
        detector=config.detector,
        weights=config.weights,
        base_fingerprint=base_fingerprint,
        classes=detector.classes,
        image_size=detector.image_size,
        policy=selection.policy,
        budget=selection.budget,
        trained_layers=planned_layers(detector, plan),
        iteration=0,
        seed=config.seed,
        keep_base_classes=config.keep_base_classes,
        freeze_first=selection.freeze_first,
        architecture=detector.architecture,
        norm_statistics="train" if detector.estimated else "hold",
    )


def announce(prepared: Prepared, config: FinetuneConfig, data: Dataset, reporter: Reporter) -> None:
    """Say what is about to be trained on what, before it takes time."""
    shots, boxes = data.train.images, sum(len(image.boxes) for image in data.train.images)
    tests = f"test: {len(data.test.images)} images" if data.test else "no test set, so no test mAP will be measured"
    reporter.say(f"Shots: {len(shots)} images with {boxes} boxes; {tests}.")
    if prepared.info.architecture.chosen:
        reporter.say(f"Built: {prepared.info.architecture}.")
    group, share = small_objects_group(prepared.detector), prepared.small_object_lr
    if group and share != 1 and config.small_object_lr is None and config.policy != "none":
        reporter.say(f"Most objects are small: {group.name} trains at {share:g} times the learning rate.")
    trained, total = parameter_counts(prepared.detector)
    layers = ", ".join(prepared.info.trained_layers) or "nothing"
    reporter.say(
        f"Training {layers}: {trained:,} of {total:,} parameters, in {prepared.precision} on {prepared.placed.device}."
    )
    if config.freeze_first:
        reporter.say(
            f"The first {config.freeze_first} of {len(prepared.detector.convolutions())} convolutions stay frozen."
        )
    if trained and prepared.plan.cut == 0 and prepared.placed.device.type == "cpu":
        reporter.say(
            "Only images are cached, because the first layer trains: --policy symmetric is several times faster."
        )
    if trained:
        _warn_of_frozen_predictor(prepared.detector, reporter)
    _announce_statistics(prepared, config, len(shots), reporter)
    if config.distil and trained:
        _announce_teacher(prepared.detector, config.distil, reporter)
    if beside := prepared.second_head:
        reporter.say(
            f"{len(beside.classes)} base classes are kept: from {beside.start} on, the pretrained layers run beside "
            f"the adapted ones ({beside.parameters:,} parameters and {beside.operations:.0%} of the computation more)."
        )


def _warn_of_frozen_predictor(detector: Detector, reporter: Reporter) -> None:
    modules = [detector.network.get_submodule(predictor.name) for predictor in detector.predictors]
    train = [module.get_parameter("weight").requires_grad for module in modules]
    if not all(train):
        how = "trains in part only" if any(train) else "does not train"
        reporter.warn(f"{detector.layers[-1].name}, the predictor, {how}: new classes keep their initial weights.")


def _announce_teacher(detector: Detector, distil: str, reporter: Reporter) -> None:
    if trains_before_predictor(detector):
        reporter.say(f"Distilling from {distil}: its embeddings are computed once for each variant.")
    else:
        reporter.warn("--distil changes nothing: no layer before the predictor trains.")


def _announce_statistics(prepared: Prepared, config: FinetuneConfig, images: int, reporter: Reporter) -> None:
    """Warn where statistics of batch norms that train have nothing to train on, or nothing to train."""
    if config.norm_statistics == "hold" or config.policy == "none":
        return
    if not prepared.detector.estimated:
        reporter.warn("--norm-statistics train changes nothing: no layer that trains has a batch norm.")
    elif images < FEW_IMAGES:
        reporter.warn(
            f"--norm-statistics train with {images} training images: fewer than {FEW_IMAGES} give poor statistics."
        )
