"""Everything a fine-tune can be told, checked when it is built."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.errors import ConfigError, closest

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("auto", "fp32", "bf16")
CACHE_TYPES = ("auto", "fp32", "bf16")
LARGEST_RATE = 1e30
"""Optimizers multiply and divide rates in float32, which ends at 3e38."""
LARGEST_COUNTS = {"iterations": 1_000_000, "batch_size": 1024, "copies": 10_000}
"""More is a slip of the finger: it would fill the memory with the order of the batches, or never end."""
LARGEST_SEED = 2**63 - 1
"""What torch's generators take."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """One fine-tune. Every field is an option of `fsod finetune` of the same name.

    Raises:
        ConfigError: listing every field that cannot work.
    """

    data: str
    """Folder of the data set: train/ and test/ in COCO format."""
    detector: str = "yolox_nano"
    """A name in the registry of detectors."""
    weights: str = "default"
    """`default`, `imagenet`, `none`, or a file: what training starts from."""
    policy: str = "symmetric"
    """Where the budget goes."""
    budget: int | None = None
    """Head layers that train, predictor included."""
    train_neck: bool = False
    """Train the neck too."""
    backbone_stages: int = 0
    """Backbone stages that train, counted from the output side, 0 … 5."""
    init_class: str = "auto"
    """A class's predictor starts from: `auto` (the base class of the same name, else those that the detector takes
    the shots' objects for, else the mean of all), `mean` (without looking at the shots), a base class, or `none`."""
    image_size: int | None = None
    """Side of the square canvas in pixels, a multiple of 32; the detector's own by default."""
    iterations: int = 200
    """Optimizer steps."""
    batch_size: int = 8
    """Variants a step."""
    copies: int = 24
    """Variants of each shot, the image as it is among them."""
    ops: tuple[str, ...] = Augmentation.ops
    """Augmentations the variants go through; their ranges follow."""
    positive: float = Augmentation.positive
    """Share of the variants that are crops around an instance."""
    flip: float = Augmentation.flip
    """Share of the variants that are mirrored."""
    rotate: float = Augmentation.rotate
    """Largest turn to either side, degrees."""
    stretch: float = Augmentation.stretch
    """Largest change of width over height, a factor."""
    scale: tuple[float, float] = Augmentation.scale
    """Smallest and largest zoom."""
    color: float = Augmentation.color
    """Strength of the change in brightness, contrast and saturation, 0 … 1."""
    optimizer: str = "adamw"
    """`adamw` or `sgd` (momentum 0.9)."""
    lr: float = 2e-3
    """Peak learning rate."""
    backbone_lr: float = 0.02
    """Rate of neck and backbone layers that train, as a share of `lr`: they know more than ten images can teach."""
    small_object_lr: float | None = None
    """Rate of the head's finest level, as a share of `lr`, where levels have heads of their own; by default 2 if small
    objects are the rule, else 1."""
    weight_decay: float = 0.01
    """Decoupled for AdamW, L2 for SGD; not on biases and norms."""
    warmup: float = 0.05
    """Share of the iterations in which the rate rises, 0 … 1."""
    clip: float = 10.0
    """Largest norm of the gradient of a step; 0 for no limit."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 where the device computes in it faster for this detector."""
    eval_every: int = 50
    """Iterations between two measurements on the test set; 0 for the end alone."""
    cache_memory: float = 2.0
    """GiB of memory for cached features."""
    cache_disk: float = 20.0
    """GiB of disk for cached features that do not fit in memory; beyond that they are computed again."""
    cache_type: str = "auto"
    """How cached features are stored: `fp32`, `bf16`, or `auto`: as they are computed."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    seed: int = 0
    """Of variants, batches and fresh weights."""

    def __post_init__(self) -> None:
        # A list, as JSON gives it, is meant as well.
        object.__setattr__(self, "scale", tuple(self.scale))
        problems = [text for good, text in self._checks() if not good]
        try:
            _ = self.augmentation
        except ConfigError as error:
            problems.append(error.message)
        if problems:
            raise ConfigError("; ".join(problems), hint="See `fsod finetune --help`.")

    def _checks(self) -> list[tuple[bool, str]]:
        choices = {
            "optimizer": OPTIMIZERS,
            "precision": PRECISIONS,
            "cache_type": CACHE_TYPES,
        }
        return [
            *(
                (getattr(self, name) in valid, _unknown(name, getattr(self, name), valid))
                for name, valid in choices.items()
            ),
            *(
                (1 <= getattr(self, name) <= most, f"{name} is {getattr(self, name)}: give 1 to {most:,}")
                for name, most in LARGEST_COUNTS.items()
            ),
            *(
                (0 <= getattr(self, name) < math.inf, f"{name} is {getattr(self, name)}: give 0 or more")
                for name in ("clip", "eval_every", "cache_memory", "cache_disk")
            ),
            (0 <= self.seed <= LARGEST_SEED, f"seed is {self.seed}: give 0 to {LARGEST_SEED}"),
            (0 <= self.weight_decay <= LARGEST_RATE, f"weight_decay is {self.weight_decay}: give 0 or more"),
            (0 < self.lr <= LARGEST_RATE, f"lr is {self.lr}: give a positive number"),
            (0 < self.backbone_lr <= LARGEST_RATE, f"backbone_lr is {self.backbone_lr}: give a positive share of lr"),
            (
                self.small_object_lr is None or 0 < self.small_object_lr <= LARGEST_RATE,
                f"small_object_lr is {self.small_object_lr}: give a positive share of lr",
            ),
            (0 <= self.warmup < 1, f"warmup is {self.warmup}: give a share of the run, from 0 to below 1"),
        ]

    def to_json(self) -> dict[str, Any]:
        """The options by name, as they are typed, so that `--config` takes them back."""
        return {**asdict(self), "ops": ",".join(self.ops)}

    @classmethod
    def from_json(cls, options: dict[str, Any]) -> FinetuneConfig:
        """The configuration a run recorded; raises ConfigError for options this version does not know."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(f"unknown options: {', '.join(unknown)}", hint=closest(unknown[0], known))
        ops = options.get("ops", ",".join(cls.ops))
        names = ops.split(",") if isinstance(ops, str) else ops
        return cls(**{**options, "ops": tuple(name for name in names if name)})

    @property
    def augmentation(self) -> Augmentation:
        """What its variants go through; raises ConfigError."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    @property
    def data_folder(self) -> Path:
        return Path(self.data)


def _unknown(name: str, value: str, valid: tuple[str, ...]) -> str:
    return f"{name} is {value!r}: {closest(value, valid)}"
