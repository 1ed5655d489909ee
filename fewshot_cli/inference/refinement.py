"""Refinement of scores: the crop of a detection is compared with the names of the classes by an encoder of both.

After the classification refinement with CLIP in Adaptive Multi-task Learning for Few-Shot Object Detection (ECCV 2024):
score = (1 − w) · s + w · p, where s is the detector's, and p the share of the detection's class in a softmax over the
similarities of its crop to the prompts of all classes and of the background. Boxes and non-maximum suppression are the
detector's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Doc, TypedDict

from fewshot_cli.datasets.images import image_size, read_image
from fewshot_cli.encoders import (
    check_installed,
    known_text_encoder,
    open_text_encoder,
    parse_encoder,
    with_whole_path,
)
from fewshot_cli.errors import ConfigError, UsageError
from fewshot_cli.inference.prediction import Prediction
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.config import REFINE_TEMPLATE, known_template
from fewshot_cli.runs.folder import Run

if TYPE_CHECKING:
    from torch import Tensor

    from fewshot_cli.encoders.contract import TextEncoder

AUTO = "auto"
LEAST = 0.05
"""Detections with a lower score are not looked at: their p is 0, so that they stay behind those that are."""
BACKGROUNDS = ("background", "something else")
"""Named by prompts beside the classes, so that a crop need not be of any class."""


class RefinedBy(TypedDict):
    """How the scores of detections were refined."""

    encoder: Annotated[str, Doc("And its weights, as --refine takes them.")]
    template: Annotated[str, Doc("Of the prompts, `{}` for the class; several are separated by `|`.")]
    weight: Annotated[float, Doc("Of the encoder in the score, 0 to 1.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """How scores are refined.

    Attributes:
        encoder: as options name it.
        template: of the prompts, as in FinetuneConfig.
        weight: of the encoder, 0 … 1.
        thresholds: class → score from which a refined detection counts; empty if that was not measured.
    """

    encoder: str
    template: str = REFINE_TEMPLATE
    weight: float
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "template": self.template, "weight": self.weight}


def make_refinement(
    what: Run | Path | None, refine: str | None, template: str | None, weight: float | str | None
) -> Refinement | None:
    """What `--refine`, `--refine-template` and `--refine-weight` ask for; None without `--refine`.

    Args:
        what: a run or a file; a checkpoint in a run's folder has what the run chose.
        refine: an encoder of images and texts, with weights or without: then with those of the run, if it has some.
        template: None: that of the run, else REFINE_TEMPLATE.
        weight: 0 … 1; `auto` or None: the one that the run chose on left-out shots.

    Raises:
        UsageError: one of the others without `refine`, an unknown encoder, or a value that is not possible.
        ConfigError: no weight is given, and the run chose none, or with another encoder or template; or a package is
            not installed.
        DataError: the run's result.json is damaged.
    """
    if refine is None:
        if template is not None or weight is not None:
            raise UsageError(
                "--refine-template and --refine-weight go with --refine", hint="Give --refine clip, or drop them."
            )
        return None
    share = _share(AUTO if weight is None else weight)
    try:
        known_text_encoder(refine)
        known_template(template)
    except ValueError as error:
        raise UsageError(f"--refine {refine}: {error}", hint="E.g. --refine clip:FILE.") from error
    check_installed(refine, "--refine")
    stored = _stored(what)
    encoder = with_whole_path(refine)
    if stored is not None and refine == parse_encoder(stored.encoder).spec.name:
        encoder = stored.encoder
    prompts = template or (stored.template if stored else REFINE_TEMPLATE)
    same = stored is not None and (encoder, prompts) == (stored.encoder, stored.template)
    if stored is not None and same and share in (None, stored.weight):
        return stored
    if share is None:
        raise _no_weight(what, stored)
    return Refinement(encoder=encoder, template=prompts, weight=share)


def _share(weight: float | str) -> float | None:
    """A weight as a number; None for `auto`."""
    if weight == AUTO:
        return None
    with suppress(ValueError):
        if 0 <= float(weight) <= 1:
            return float(weight)
    raise UsageError(f"a refinement weight of {weight} is not possible", hint="Give auto, or a number from 0 to 1.")


def _stored(what: Run | Path | None) -> Refinement | None:
    """What a run chose on left-out shots; None if it did not."""
    if isinstance(what, Path):
        run = Run(what.parent)
        what = run if what in (run.checkpoint, run.best_checkpoint) else None
    chosen = what.read_result().get("refine") if what is not None and what.finished else None
    if not chosen:
        return None
    names = ("encoder", "template", "weight", "thresholds")
    return Refinement(**{name: chosen[name] for name in names})


def _no_weight(what: Run | Path | None, stored: Refinement | None) -> ConfigError:
    hint = "Give --refine-weight 0…1, or fine-tune with --refine, which chooses it on left-out shots."
    if stored is None:
        named = what.folder if isinstance(what, Run) else what or "a pretrained detector"
        return ConfigError(f"--refine-weight auto: {named} has no weight of --refine", hint=hint)
    return ConfigError(
        f"--refine-weight auto: the run chose its weight with {stored.encoder} and the template {stored.template!r}",
        hint=f"Drop --refine-template and give --refine {parse_encoder(stored.encoder).spec.name}, or give a weight.",
    )


def prompts_of(template: str, name: str) -> list[str]:
    """The prompts of a class: one for each template."""
    return [each.strip().replace("{}", name) for each in template.split("|")]


class Refiner:
    """Refines the scores of detections.

    Args:
        refinement: how.
        classes: the detector's, in label order.
        device: where the encoder computes.
        reporter: told what is loaded.

    Raises:
        ModelError, CheckpointError, NetworkError, ConfigError: the encoder cannot be had.
    """

    def __init__(self, refinement: Refinement, classes: Sequence[str], device: str, reporter: Reporter) -> None:
        import torch
        from torch.nn import functional as F

        self.refinement = refinement
        self._encoder: TextEncoder | None = None
        if refinement.weight:
            self._encoder = open_text_encoder(refinement.encoder, torch.device(device), reporter)
            names = [prompts_of(refinement.template, name) for name in (*classes, *BACKGROUNDS)]
            embedded = [self._encoder.embed_texts(prompts).mean(dim=0) for prompts in names]
            self._texts: Tensor = F.normalize(torch.stack(embedded))

    def __call__(self, prediction: Prediction, pixels: NDArray[np.uint8]) -> Prediction:
        """The same detections with refined scores, best first.

        Args:
            prediction: in the pixels of this image.
            pixels: (H, W, 3) uint8 RGB.
        """
        import torch

        return self._with(prediction, self.shares(torch.from_numpy(pixels).permute(2, 0, 1), prediction))

    def _with(self, prediction: Prediction, shares: NDArray[np.float32]) -> Prediction:
        scores = fused(prediction.scores, shares, self.refinement.weight)
        order = np.argsort(-scores, kind="stable")
        return replace(prediction.take(order), scores=scores[order])

    def in_file(self, prediction: Prediction, path: Path) -> Prediction:
        """The same in an image file, of which fewer pixels may be decoded; raises DataError."""
        return self._with(prediction, self.shares_in_file(prediction, path))

    def shares_in_file(self, prediction: Prediction, path: Path) -> NDArray[np.float32]:
        """`shares` in an image file; raises DataError."""
        pixels = read_image(path)
        return self.shares(pixels, prediction.at((pixels.shape[2], pixels.shape[1])))

    def shares(self, pixels: Tensor, prediction: Prediction) -> NDArray[np.float32]:
        """p of each detection: (N,), 0 for those that are not looked at."""
        import torch

        found = np.zeros(len(prediction), dtype=np.float32)
        sides = prediction.boxes[:, 2:] - prediction.boxes[:, :2]
        chosen = np.flatnonzero((prediction.scores >= LEAST) & (sides > 0).all(axis=1))
        if self._encoder is None or not len(chosen):
            return found
        crops = self._encoder.embed(pixels, torch.from_numpy(prediction.boxes[chosen]))
        softmax = (self._encoder.scale * crops @ self._texts.T).softmax(dim=1).numpy()
        found[chosen] = softmax[np.arange(len(chosen)), prediction.labels[chosen]]
        return found


def fused(scores: NDArray[np.float32], shares: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """(1 − w) · s + w · p."""
    return ((1 - weight) * scores + weight * shares).astype(np.float32) if weight else scores


def whole_image(boxes: NDArray[np.float32], scores: Any, labels: Any, classes: Sequence[str], path: Path) -> Prediction:
    """Detections in an image file as a prediction, in its pixels."""
    size = image_size(path, decode=False)
    return Prediction(boxes=boxes, scores=scores, labels=labels, classes=tuple(classes), size=size)
