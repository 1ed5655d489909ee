"""CLIP (Radford et al., arXiv 2103.00020) by open_clip: images and texts as vectors of one space."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot_cli.detectors.weights import read_weights
from fewshot_cli.encoders import model_and_file
from fewshot_cli.encoders.crops import crops_of, embed_in_batches
from fewshot_cli.encoders.loading import load
from fewshot_cli.errors import CheckpointError, ModelError, NetworkError, closest
from fewshot_cli.progress import Reporter

MODEL, TAG = "ViT-B-32", "laion2b_s34b_b79k"
"""The architecture where none is named, and its weights where none are: 151 M parameters, MIT licence."""
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's state dicts hold beside the weights."""


def build(weights: str, device: torch.device, reporter: Reporter) -> ClipEncoder:
    """The encoder.

    Args:
        weights: `[MODEL/]FILE`, a state dict or a checkpoint of open_clip; `[MODEL/]TAG`, weights that open_clip
            downloads itself; or `MODEL` alone. Weights of OpenAI are of the models with `-quickgelu` in their name.
        reporter: told what is loaded.

    Raises:
        ModelError: open_clip has no such model, or it cannot be built.
        CheckpointError: neither a file nor a tag, or a file that does not fit.
        NetworkError: open_clip could not download the weights.
    """
    model, file = model_and_file(weights)
    if file is not None:
        network = _from_file(_known(model or MODEL), file)
        return ClipEncoder(network, model or MODEL, device)
    model, tag = _model_and_tag(weights)
    reporter.say(f"CLIP {model}, weights {tag} by open_clip.")
    return ClipEncoder(_published(model, tag), model, device)


def _known(model: str) -> str:
    if model not in open_clip.list_models():
        raise ModelError(f"open_clip has no model {model!r}", hint=closest(model, open_clip.list_models()))
    return model


def _model_and_tag(weights: str) -> tuple[str, str]:
    """What `[MODEL/]TAG` names; raises CheckpointError if it is no weights of the model."""
    model, _, tag = weights.partition("/")
    if model not in open_clip.list_models():
        model, tag = MODEL, weights
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = tag or (TAG if model == MODEL else next(iter(tags), ""))
    if tag not in tags:
        raise CheckpointError(
            f"no weights of CLIP {model}: {weights!r} is neither a file nor a tag of open_clip",
            hint=f"Give a file, MODEL/FILE or MODEL/TAG. {closest(tag, tags)}",
        )
    return model, tag


def _from_file(model: str, file: Path) -> nn.Module:
    state = {name: tensor for name, tensor in read_weights(file).items() if name not in NO_WEIGHTS}
    network = _create(model, load_weights=False)
    load(network, state, file, what=f"CLIP {model}")
    return network


def _published(model: str, tag: str) -> nn.Module:
    quick = bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu"))
    try:
        return _create(model, pretrained=tag, force_quick_gelu=quick)
    except ModelError as error:
        raise NetworkError(
            f"open_clip could not get the weights {tag} of CLIP {model}: {_reason(error.__cause__ or error)}",
            hint="Without a network give a file: clip:FILE or clip:MODEL/FILE.",
        ) from error


def _create(model: str, **options: Any) -> nn.Module:
    try:
        with _silently(), torch.random.fork_rng(devices=[]):
            network: nn.Module = open_clip.create_model(model, **options)
    except MemoryError:
        raise
    except Exception as error:  # whatever open_clip and the libraries below it raise
        raise ModelError(
            f"open_clip cannot build CLIP {model}: {_reason(error)}", hint="Choose another model."
        ) from error
    return network


def _reason(error: BaseException) -> str:
    """The first line of what was raised."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _silently() -> Iterator[None]:
    """What open_clip logs is about weights that are loaded behind its back, or is in the error too."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


class ClipEncoder:
    """A CLIP model of open_clip.

    Args:
        network: with weights.
        model: its name in open_clip.
        device: where it computes.
    """

    def __init__(self, network: Any, model: str, device: torch.device) -> None:
        self._network = network.eval().requires_grad_(False).float().to(device)
        self._tokenize = open_clip.get_tokenizer(model)
        self._dimension = int(open_clip.get_model_config(model)["embed_dim"])
        size = network.visual.image_size
        self._side = int(size[0] if isinstance(size, tuple | list) else size)
        self._mean, self._deviation = (
            torch.tensor(getattr(network.visual, name, None) or default, device=device)[:, None, None]
            for name, default in (
                ("image_mean", open_clip.OPENAI_DATASET_MEAN),
                ("image_std", open_clip.OPENAI_DATASET_STD),
            )
        )
        self._device = device

    @property
    def scale(self) -> float:
        return float(self._network.logit_scale.exp())

    def embed(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        return embed_in_batches(self._encode, crops_of(pixels, boxes, self._side), self._dimension, self._device)

    def _encode(self, crops: Tensor) -> Tensor:
        encoded: Tensor = self._network.encode_image((crops - self._mean) / self._deviation)
        return encoded

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        with torch.autocast(self._device.type, enabled=False):
            return F.normalize(self._network.encode_text(self._tokenize(list(texts)).to(self._device)).float().cpu())
