"""Image encoders: pretrained networks that turn the crop of an object into a vector. Nothing here imports torch.

`finetune --distil` takes one as a teacher, and `--refine` one that encodes texts too. To add one:

1. Write a module beside this one with a function `build(weights, device, reporter)` that returns a `contract.Encoder`,
   and a `contract.TextEncoder` if it encodes texts. `weights` is what follows the name and a colon in an option, empty
   if there is none.
2. Add a line to ENCODERS.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fewshot_cli.errors import CheckpointError, ConfigError, DataError, closest
from fewshot_cli.paths import is_file, whole
from fewshot_cli.progress import Reporter

if TYPE_CHECKING:
    import torch

    from fewshot_cli.encoders.contract import Encoder, TextEncoder


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What can be said of an encoder without building it.

    Attributes:
        name: as options give it.
        summary: one line for lists.
        module: has `build`.
        texts: whether it encodes texts.
        package: that must be installed, and `extra`, with which pip installs it; None: none.
    """

    name: str
    summary: str
    module: str
    texts: bool = False
    package: str | None = None
    extra: str = ""


ENCODERS = {
    spec.name: spec
    for spec in (
        EncoderSpec("clip", "CLIP by open_clip", "fewshot_cli.encoders.clip", True, "open_clip", "clip"),
        EncoderSpec("backbone:mobilenet_v2", "MobileNetV2, ImageNet", "fewshot_cli.encoders.mobilenet_v2"),
    )
}


class Chosen(NamedTuple):
    """An encoder and its weights, as an option names them: `NAME` or `NAME:WEIGHTS`."""

    spec: EncoderSpec
    weights: str


def parse_encoder(text: str) -> Chosen:
    """What an option names; raises ValueError with the valid names."""
    for name, spec in ENCODERS.items():
        if text == name or text.startswith(f"{name}:"):
            return Chosen(spec, text[len(name) + 1 :])
    raise ValueError(closest(text, ENCODERS))


NOTHING = "none"
"""Instead of an encoder, in sweeps that compare it with nothing."""


def known_encoder(text: str | None) -> str | None:
    """The text, if it names an encoder, or None for NOTHING; otherwise raises ValueError."""
    if text is None or text == NOTHING:
        return None
    parse_encoder(text)
    return text


def known_text_encoder(text: str | None) -> str | None:
    """The text, if it names an encoder of texts too, or None for NOTHING; otherwise raises ValueError."""
    if text is None or text == NOTHING:
        return None
    if not parse_encoder(text).spec.texts:
        raise ValueError(closest(text, [name for name, spec in ENCODERS.items() if spec.texts]))
    return text


def check_installed(text: str, option: str) -> None:
    """Raise ConfigError if the package of an encoder is not installed; nothing is imported.

    Args:
        text: names an encoder.
        option: that names it, for the message.
    """
    spec = parse_encoder(text).spec
    if spec.package and find_spec(spec.package) is None:
        raise ConfigError(
            f"{option} {spec.name} needs the package {spec.package}, which is not installed",
            hint=f'pip install "fsod[{spec.extra}]"',
        )


def with_whole_path(text: str) -> str:
    """The same with the absolute path of the file, where the weights are one: a run is continued from any folder."""
    spec, weights = parse_encoder(text)
    model, file = model_and_file(weights)
    if file is None:
        return text
    place = str(whole(file, error=CheckpointError))
    return f"{spec.name}:{model}/{place}" if model else f"{spec.name}:{place}"


def model_and_file(weights: str) -> tuple[str, Path | None]:
    """`FILE` or `MODEL/FILE` → model, empty if none is named, and the file; None if there is no such file."""
    model, _, rest = weights.partition("/")
    for name, path in (("", weights), (model, rest)):
        if path and _is_file(path):
            return name, Path(path)
    return "", None


def _is_file(path: str) -> bool:
    try:
        return is_file(path)
    except DataError:  # no path at all: whoever loads the weights says that there are none
        return False


def open_encoder(text: str, device: torch.device, reporter: Reporter) -> Encoder:
    """Build the encoder that an option names, on a device.

    Raises:
        ConfigError: its package is not installed.
        ModelError, CheckpointError, NetworkError: its weights cannot be had.
    """
    chosen = parse_encoder(text)
    check_installed(text, "encoder")
    encoder: Encoder = import_module(chosen.spec.module).build(chosen.weights, device, reporter)
    return encoder


def open_text_encoder(text: str, device: torch.device, reporter: Reporter) -> TextEncoder:
    """The same for one that encodes texts (`known_text_encoder`)."""
    encoder: TextEncoder = open_encoder(text, device, reporter)  # type: ignore[assignment]
    return encoder
