"""The size of a detector's neck and head, where they are built and not loaded; nothing here imports torch.

With a pretrained backbone that stays frozen, it is the capacity of the rest that decides what a fine-tune can learn:
Vasconcelos, Birodkar and Dumoulin, Proper Reuse of Image Classification Features Improves Object Detection, CVPR 2022
(arXiv 2204.00484).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Le, MultipleOf

from fewshot_cli.bounds import HEAD_CHANNELS, HEAD_DEPTH
from fewshot_cli.errors import ConfigError

Neck: TypeAlias = Literal["fpn", "bifpn"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """What is built in front of the classes and boxes; None for what is the detector's own.

    Attributes:
        head_depth: M, the number of head layers, predictor included.
        head_channels: of the neck's maps and of the towers.
        neck: what joins the maps of the backbone, `fpn` (arXiv 1612.03144) or `bifpn` (arXiv 1911.09070).
    """

    head_depth: Annotated[int, Ge(HEAD_DEPTH.least), Le(HEAD_DEPTH.most)] | None = None
    head_channels: (
        Annotated[int, Ge(HEAD_CHANNELS.least), Le(HEAD_CHANNELS.most), MultipleOf(HEAD_CHANNELS.step)] | None
    ) = None
    neck: Neck | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        """What is not the detector's own, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.chosen.items())

    def check(self) -> None:
        """Raise ConfigError for a depth or channels that are out of bounds."""
        if self.head_depth is not None:
            HEAD_DEPTH.check("head_depth", self.head_depth)
        if self.head_channels is not None:
            HEAD_CHANNELS.check("head_channels", self.head_channels)


OWN = Architecture()
"""The detector's own."""


def options_of(names: Iterable[str]) -> str:
    """Names of fields as options: `--head-depth, --neck`."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def loaded_whole(architecture: Architecture, weights: object) -> ConfigError:
    """The error for a size that is chosen where weights bring their own."""
    return ConfigError(
        f"{options_of(architecture.chosen)} with {weights}: weights of the whole detector bring its neck and head",
        hint="Drop the option, or give weights of the backbone alone: imagenet, none, or a classifier's file.",
    )
