"""Everything that decides a fine-tune, checked when it is built."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fewshot_cli import settings
from fewshot_cli.augmentation.config import Variants
from fewshot_cli.bounds import (
    BATCH_SIZE,
    CONVOLUTIONS,
    EVERY,
    FOLDS,
    HEAD_CHANNELS,
    HEAD_DEPTH,
    IMAGE_SIZE,
    ITERATIONS,
    SEED,
    THREADS,
)
from fewshot_cli.detectors.architecture import Architecture
from fewshot_cli.encoders import ENCODERS, known_encoder, known_text_encoder
from fewshot_cli.errors import ConfigError, closest
from fewshot_cli.panels import ADVANCED, DATA, LAYERS, MACHINE, TRAINING
from fewshot_cli.policies import AUTO, POLICIES, parse_budget
from fewshot_cli.runs.balances import NONE, known_balance
from fewshot_cli.runs.schedules import COSINE, PLATEAU, known_schedule, parse_schedule
from fewshot_cli.settings import Option
from fewshot_cli.tracking import TRACKERS, known_trackers

LARGEST_RATE = 1e30
"""Optimizers multiply and divide rates in float32, which ends at 3e38."""
HINT = "See `fsod finetune --help`."
REFINE_TEMPLATE = "a photo of a {}"
"""Prompt for a class where none is given."""


def _folds(folds: int | None) -> int | None:
    if folds == 1:
        raise ValueError("give 2 folds or more, or 0 for no cross-validation")
    return folds


def _rules(names: tuple[str, ...]) -> tuple[str, ...]:
    """Policies that have a rule, each once; ValueError for another name."""
    rules = [name for name, policy in POLICIES.items() if policy.head_layers]
    for name in names:
        if name not in rules:
            raise ValueError(closest(name, rules))
    return tuple(dict.fromkeys(names))


def _alpha(value: float | str) -> float | str:
    """A share from 0 to 1, also as text; or `auto`."""
    if value == AUTO:
        return AUTO
    with suppress(ValueError):
        if 0 <= float(value) <= 1:
            return float(value)
    raise ValueError(f"give a number from 0 to 1, or {AUTO}")


def known_template(text: str | None) -> str | None:
    """The text, if each of its templates names the class once; ValueError otherwise."""
    if text is not None and any(each.count("{}") != 1 for each in text.split("|")):
        raise ValueError(f"give a text with {{}} in place of the class, e.g. {REFINE_TEMPLATE}")
    return text


def layers_or_text(budget: int | str | None) -> int | str | None:
    """A budget as it is kept: layers as a number, anything else as it is typed; ValueError if it is none."""
    if budget is None:
        return None
    layers = parse_budget(budget).layers
    return str(budget).strip() if layers is None else layers


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Variants):
    """One fine-tune. Every field is an option of `fsod finetune` of the same name.

    Raises:
        ConfigError: listing every field that cannot work.
    """

    data: Annotated[str, Option("Data set folder; default: the one fetched last under ./data.", panel=DATA)]
    detector: Annotated[
        str,
        Option(
            "Detector to adapt; default: yolox_nano, or the one made for the data set.",
            panel=DATA,
        ),
    ] = "yolox_nano"
    weights: Annotated[
        str,
        Option(
            "Initial weights: default (COCO, or ImageNet where there are none), "
            "imagenet (backbone only), none, or a file.",
            panel=DATA,
        ),
    ] = "default"
    init_class: Annotated[
        str,
        Option(
            "A class's predictor starts as: auto, mean (of all), none (random), or a base class.",
            panel=ADVANCED,
        ),
    ] = "auto"
    image_size: Annotated[
        int | None,
        Option(
            "Side of the square canvas, pixels, a multiple of 32; default: the detector's own.",
            panel=DATA,
            within=IMAGE_SIZE,
        ),
    ] = None
    policy: Annotated[
        str,
        Option(
            f"Where the budget goes: {', '.join(POLICIES)}; default: full, or symmetric with a budget.",
            panel=LAYERS,
        ),
    ] = "full"
    budget: Annotated[
        int | str | None,
        Option(
            "Head layers that train, predictor included, or parameters (60k, 5%); default: 3.",
            panel=LAYERS,
            metavar="N|60k|5%|auto",
            check=layers_or_text,
        ),
    ] = None
    layers: Annotated[
        tuple[str, ...],
        Option(
            "Names of the layers that train, with commas; see `fsod inspect-layers`.",
            panel=LAYERS,
            metavar="NAMES",
            words=True,
        ),
    ] = ()
    candidates: Annotated[
        tuple[str, ...],
        Option(
            "Policies that policy auto compares, with commas; default: all.",
            panel=ADVANCED,
            metavar="NAMES",
            words=True,
            check=_rules,
        ),
    ] = ()
    train_neck: Annotated[bool, Option("Train the neck too.", panel=LAYERS, flags="--train-neck/--freeze-neck")] = False
    backbone_stages: Annotated[
        int, Option("Backbone stages that train, counted from the output side.", panel=LAYERS)
    ] = 0
    freeze_first: Annotated[
        int | None,
        Option(
            "The first N convolutions, counted from the input, stay frozen; everything after them trains.",
            panel=LAYERS,
            metavar="N",
            within=CONVOLUTIONS,
        ),
    ] = None
    head_depth: Annotated[
        int | None,
        Option(
            "Layers M of a new head, predictor included; default: the detector's own.",
            panel=ADVANCED,
            within=HEAD_DEPTH,
        ),
    ] = None
    head_channels: Annotated[
        int | None,
        Option(
            "Channels of a new neck and head; default: the detector's own.",
            panel=ADVANCED,
            within=HEAD_CHANNELS,
        ),
    ] = None
    neck: Annotated[
        Literal["fpn", "bifpn"] | None,
        Option("New neck: fpn, or bifpn, which is deeper; default: the detector's own.", panel=ADVANCED),
    ] = None
    keep_base_classes: Annotated[
        bool,
        Option(
            "Keep the pretrained head too: base classes are found as before.",
            panel=LAYERS,
        ),
    ] = False
    iterations: Annotated[int, Option("Optimizer steps.", panel=TRAINING, within=ITERATIONS)] = 200
    batch_size: Annotated[int, Option("Variants per optimizer step.", panel=TRAINING, within=BATCH_SIZE)] = 8
    optimizer: Annotated[
        Literal["adamw", "sgd"], Option("Optimizer: adamw, or sgd with a momentum of 0.9.", panel=ADVANCED)
    ] = "adamw"
    lr: Annotated[float, Option("Peak learning rate.", panel=TRAINING, gt=0, le=LARGEST_RATE)] = 2e-3
    # Far below the head's: ten images can only spoil what these layers have learnt from a hundred thousand.
    backbone_lr: Annotated[
        float | None,
        Option(
            "Pretrained neck and backbone: share of --lr; default: 0.1 for new classes, else 0.02.",
            panel=ADVANCED,
            gt=0,
            le=LARGEST_RATE,
        ),
    ] = None
    small_object_lr: Annotated[
        float | None,
        Option(
            "YOLOX, stride-8 level: share of --lr; default: 2 for small objects, else 1.",
            panel=ADVANCED,
            gt=0,
            le=LARGEST_RATE,
        ),
    ] = None
    distil: Annotated[
        str | None,
        Option(
            f"Draw features of objects to a teacher's embeddings of their crops: {', '.join(ENCODERS)}; "
            "either may have :WEIGHTS.",
            panel=ADVANCED,
            metavar="TEACHER[:WEIGHTS]",
            check=known_encoder,
        ),
    ] = None
    distil_loss: Annotated[
        Literal["cosine", "l2"], Option("Distance from the teacher's embedding, of length 1.", panel=ADVANCED)
    ] = "cosine"
    distil_weight: Annotated[
        float, Option("Weight of that distance in the loss.", panel=ADVANCED, gt=0, le=LARGEST_RATE)
    ] = 1.0
    refine: Annotated[
        str | None,
        Option(
            "Encoder of crops and class names (clip) for `predict --refine`; its weight is chosen on left-out shots.",
            panel=ADVANCED,
            metavar="clip[:WEIGHTS]",
            check=known_text_encoder,
        ),
    ] = None
    refine_template: Annotated[
        str,
        Option(
            "With --refine: prompt for a class, {} for its name; several, separated by |, are averaged.",
            panel=ADVANCED,
            metavar="TEXT",
            check=known_template,
        ),
    ] = REFINE_TEMPLATE
    weight_decay: Annotated[
        float,
        Option(
            "Weight decay; biases and norm parameters are exempt.",
            panel=ADVANCED,
            ge=0,
            le=LARGEST_RATE,
        ),
    ] = 0.01
    warmup: Annotated[
        float,
        Option("Share of the iterations during which the learning rate rises, 0 to 1.", panel=ADVANCED, ge=0, lt=1),
    ] = 0.05
    schedule: Annotated[
        str,
        Option(
            "Decay of the rate: cosine; to a tenth at shares A, B of the run; or at plateaus of the training loss.",
            panel=ADVANCED,
            metavar="cosine|plateau|steps:A,B",
            check=known_schedule,
        ),
    ] = COSINE
    clip: Annotated[float, Option("Largest norm of a step's gradient; 0: no limit.", panel=ADVANCED, ge=0)] = 10.0
    balance: Annotated[
        str,
        Option(
            "Classification against localisation: none, precision, gradnorm, uncertainty, or weights C:L.",
            panel=ADVANCED,
            metavar="METHOD|C:L",
            check=known_balance,
        ),
    ] = NONE
    norm_statistics: Annotated[
        Literal["hold", "train"],
        Option("Batch norms in layers that train: hold their statistics, or train them too.", panel=ADVANCED),
    ] = "hold"
    eval_every: Annotated[
        int,
        Option("Iterations between two evaluations on the test set; 0: only at the end.", panel=TRAINING, within=EVERY),
    ] = 50
    measure_train: Annotated[
        bool, Option("At each evaluation, measure on the training images too.", panel=TRAINING)
    ] = False
    cross_validate: Annotated[
        int | None,
        Option(
            "Folds of a cross-validation on the shots; default: 5 or 3 without a test set, else 0.",
            panel=TRAINING,
            within=FOLDS,
            check=_folds,
        ),
    ] = None
    average: Annotated[
        float | str,
        Option(
            "Share of the trained weights in an average with those before, 0 to 1, or auto.",
            panel=TRAINING,
            metavar="auto|ALPHA",
            check=_alpha,
        ),
    ] = AUTO
    seed: Annotated[
        int,
        Option("Random seed for augmentation, batch order and new weights.", panel=TRAINING, within=SEED),
    ] = 0
    device: Annotated[
        str, Option("Device that computes: auto, cpu, cuda, cuda:N or mps (Apple; untested).", panel=MACHINE)
    ] = "auto"
    threads: Annotated[
        int | None,
        Option("Threads that compute on the CPU; default: the free cores.", panel=MACHINE, within=THREADS),
    ] = None
    deterministic: Annotated[
        bool,
        Option(
            "Only operations that give the same bits every time; one thread unless --threads is given. Slower.",
            panel=MACHINE,
        ),
    ] = False
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Option(
            "Number format of convolutions; auto: bf16 where it is faster.",
            panel=MACHINE,
        ),
    ] = "auto"
    cache_memory: Annotated[float, Option("Memory for cached features, GiB.", panel=ADVANCED, ge=0)] = 2.0
    cache_disk: Annotated[
        float,
        Option(
            "Disk for cached features beyond --cache-memory, GiB.",
            panel=ADVANCED,
            ge=0,
        ),
    ] = 20.0
    cache_type: Annotated[
        Literal["auto", "fp32", "bf16"],
        Option("Number format of cached features; auto: as computed.", panel=ADVANCED),
    ] = "auto"
    tracker: Annotated[
        tuple[str, ...],
        Option(
            f"Experiment trackers, with commas: {', '.join(TRACKERS)}.",
            panel=ADVANCED,
            metavar="NAMES",
            words=True,
            check=known_trackers,
        ),
    ] = ()

    def __post_init__(self) -> None:
        settings.validate(self, hint=HINT)
        if self.norm_statistics == "train" and self.batch_size == 1:
            raise ConfigError(
                "--norm-statistics train with --batch-size 1: one image is no sample to take statistics of",
                hint="Give --batch-size 2 or more, or --norm-statistics hold.",
            )
        if self.refine and self.cross_validate == 0:
            raise ConfigError(
                "--refine with --cross-validate 0: its weight is chosen on left-out shots",
                hint="Give --cross-validate 2 or more, or none of both.",
            )
        if parse_schedule(self.schedule).kind == PLATEAU and not self.eval_every:
            raise ConfigError(
                f"schedule {PLATEAU} with eval_every 0: it follows the training loss between evaluations",
                hint="Give --eval-every 1 or more.",
            )

    def to_json(self) -> dict[str, Any]:
        """The options by name, as they are typed, so that `--config` takes them back."""
        return settings.to_json(self)

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> FinetuneConfig:
        """The configuration that a run recorded; raises ConfigError for unknown options and wrong values."""
        return settings.from_mapping(cls, options, hint=HINT)

    @property
    def data_folder(self) -> Path:
        return Path(self.data)

    @property
    def architecture(self) -> Architecture:
        """The size of neck and head."""
        return Architecture(self.head_depth, self.head_channels, self.neck)
